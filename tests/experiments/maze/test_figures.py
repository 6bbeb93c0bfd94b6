import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from experiments.maze import figures
from experiments.maze.rollout import Rollouts

LINE = np.linspace([2.5, 2.5], [2.5, 2.0], 6)


@pytest.fixture
def rollouts():
    success, collided = np.array([True, False, False]), np.array([False, True, False])
    positions = np.stack([LINE, LINE - 0.1, LINE + 0.1])
    return Rollouts(positions, np.array([5, 5, 5]), success, collided, positions[:, -1])


def test_sources_figure_shows_each_source(tmp_path):
    figure = figures.sources_figure({"GCS": [LINE] * 3, "RRT": [LINE[:3]] * 1500}, shown=2)
    first, second = figure.axes[:2]
    assert first.get_title().startswith("GCS: 3 trajectories (2 shown)")
    assert second.get_title().startswith("RRT: 1,500 trajectories (2 shown)")
    for axes, steps in ((first, 5), (second, 2)):
        (lines,) = (c for c in axes.collections if isinstance(c, LineCollection))
        assert len(lines.get_segments()) == 2 * steps
        assert lines.norm.vmax == pytest.approx(0.5)  # one time scale for both
    figure.savefig(tmp_path / "sources.png", dpi=50)
    assert (tmp_path / "sources.png").read_bytes().startswith(b"\x89PNG")


def test_rollouts_figure_colours_by_outcome(tmp_path, rollouts):
    figure = figures.rollouts_figure({"ambient": rollouts, "again": rollouts})
    axes = figure.axes[0]
    assert axes.get_title().startswith("ambient: 33.3% success")
    colours = [to_hex(line.get_color()) for line in axes.lines if len(line.get_xdata()) == 6]
    assert colours == list(figures._OUTCOMES.values())
    figure.savefig(tmp_path / "rollouts.pdf")
    assert (tmp_path / "rollouts.pdf").read_bytes().startswith(b"%PDF")


def test_no_rollout_succeeds(rollouts):
    failed = Rollouts(
        rollouts.positions,
        rollouts.lengths,
        ~rollouts.success & False,
        rollouts.collided,
        rollouts.goals,
    )
    figure = figures.rollouts_figure({"bad": failed})
    assert figure.axes[0].get_title() == "bad: 0.0% success\nmean squared jerk n/a m²/s⁶"


def test_no_global_state(rollouts):
    before = dict(matplotlib.rcParams)
    figures.rollouts_figure({"ambient": rollouts})
    figures.sources_figure({"GCS": [LINE]})
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


def test_bad_input():
    with pytest.raises(ValueError, match="got no sources"):
        figures.sources_figure({})
    with pytest.raises(ValueError, match="got no policies"):
        figures.rollouts_figure({})
