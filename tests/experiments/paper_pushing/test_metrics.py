import numpy as np

from experiments.paper_pushing import metrics
from experiments.paper_pushing.env import PaperScene
from experiments.paper_pushing.rollout import Rollouts


def test_counts_the_parts_of_success():
    """By hand: placed in 3 of 4, lost in 1, back in 2, success in 1 of 4, after 5 s."""
    error = np.array([(0.01, 0.01), (0.01, 0.05), (0.014, 0.06), (0.2, 0.0)])
    back, success = np.array([0.01, 0.3, 0.02, 0.03]), np.array([True, False, False, False])
    made = Rollouts(
        np.arange(4), np.array([50, 750, 750, 750]), success, error, np.zeros((4, 3, 9)), back
    )
    summary = metrics.summarise(made, PaperScene(angle=0.07))
    assert summary.placed.value == 0.75 and summary.lost.value == 0.25
    assert summary.back.value == 0.5
    assert summary.success.value == 0.25 and summary.seconds.value == 5
