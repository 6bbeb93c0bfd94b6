"""Numbers that the two talks and the paper print, which `python -m docs.talks` sets beside ours.

long talk   Adam Wei, Learning From Bad Data in Robotics (RLG), 24 September 2025
hub talk    Adam Wei, Learning From Out-of-Distribution Data in Robotics (Amazon Robotics Hub), the
            same day
paper       Wei et al., Ambient Diffusion Policy, arXiv 2606.12365, June 2026, section 5

The talks' numbers are those of their slides' text. Of the paper's, its authors' page
(https://ambient-diffusion-policy.github.io) prints these again: maze 99.5 and 31.0 against 62.2,
pushing 93.5 against 84.5, sorting 93.3 against 22.7 with sigma_max 0.46. Rates are in percent; None
is a number that is not printed.
"""

from typing import NamedTuple

Number = float | str | None


class Printed(NamedTuple):
    """Numbers of one source: by policy, one for each metric."""

    numbers: dict[str, tuple[Number, ...]]
    trials: int | None = None  # behind each rate


# Long talk, "Results" of part 2 (hub talk: co-training and ambient, the same); 100 GCS and 5000
# RRT plans. Success, mean squared jerk.
MAZE_TALK = Printed(
    {
        "GCS only": (50, 7.5e3),
        "co-training": (91, 14.5e3),
        "ambient, best sigma_min": (98, 5.5e3),
        "RRT only": (100, 17e3),
    },
    trials=100,
)
# Paper 5.1; 50 GCS and 5000 RRT plans. Success, mean squared acceleration.
MAZE_PAPER = Printed(
    {
        "GCS only": (57.5, 31.9),
        "co-training": (99.4, 62.2),
        "ambient, best sigma_min": (99.5, 31.0),
        "exclusive bands": (99.0, 29.9),
    },
    trials=1000,
)
MAZE_SIGMA_MIN, MAZE_ALPHA = 0.074, 0.019  # the paper's best

# Hub talk, "Results" of sim-and-real co-training; 50 target and 2000 source demonstrations. The 200
# trials are from Wei's talk of 19 June 2025, https://slides.com/weiadam/amazon-coro-july.
# Long talk, parts 3 and 4: orders, and figures whose numbers are not in the slides' text.
PUSHING_TALK = Printed(
    {
        "co-training by number": (75.5,),  # "Diffusion"; for which data see ``talks.sources``
        "co-training, best alpha": (84.5,),  # "Diffusion w/ Reweighting"
        "ambient per datapoint, by classifier": (93.5,),  # "Ambient"
        "ambient in random buckets of 100": ("figure only",),
        "source only": ("bad",),
    },
    trials=200,
)
# Paper 5.2; the same numbers of demonstrations.
PUSHING_PAPER = Printed(
    {
        "target only": (56.5,),
        "co-training, best alpha": (84.5,),
        "ambient per data set, swept": (87.0,),
        "ambient per datapoint, by classifier": (93.5,),
        "ambient with sigma_max": (92.0,),
    },
    trials=200,
)
PUSHING_SIGMA_MAX = 0.025
# Paper 5.2: tolerance [mm, degrees], time limit [s], image size, offset of the centre of mass [mm].
PUSHING_TASK = {"mm": 15, "degrees": 3.5, "seconds": 75, "pixels": 128, "offset": 65}
SCALING = (500, 4000)  # source demonstrations, long talk, part 4

# Long talk, "Results" of part 5 (hub talk: the same without "told the task" and logic); 50 correct
# and 200 arbitrary demonstrations, number of trials not printed. Score, completion, correct logic.
SORTING_TALK = Printed(
    {
        "correct only": (70.4, 48, "high"),
        "co-training": (55.2, 88, "low"),
        "co-training, told the task": (88.8, 86, 92.5),
        "omni, best sigma_max": (94.0, 88, 97.5),
    }
)
# Paper 5.3; 200 opposite demonstrations, number of trials not known here. Logic, motion, success.
SORTING_PAPER = Printed(
    {
        "correct only": (98.6, 61.9, 61.0),
        "opposite only": (3.0, 83.0, 2.5),
        "co-training": (26.0, 87.2, 22.7),
        "co-training, told the task": (None, None, "below omni"),
        "omni, best sigma_max": (98.2, 95.0, 93.3),
        "exclusive bands": (97.9, 93.8, None),
    }
)
SORTING_SIGMA_MAX = {"talk": 0.24, "paper": 0.46}
SORTING_ALPHA = 0.9  # the paper's best of co-training with opposite demonstrations

# Paper, neural motion planning with 7 joints. Success, mean squared acceleration.
PLANNING_PAPER = Printed(
    {
        "filtering": (46.0, 3.9),
        "co-training (alpha 0.091)": (59.9, 42.7),
        "ambient (sigma_min 0.025)": (65.9, 31.4),
    },
    trials=1000,
)
# Paper, Open X-Embodiment on a real robot, table cleaning with 50 and 150 demonstrations. What the
# number of demonstrations does not tell apart stands in the first column.
OPEN_X_PAPER = Printed(
    {
        "filtering": (68.2, 80.1),
        "co-training with 27 and 48 data sets": ("2 to 3 points above filtering", "the same"),
        "ambient": ("12 points above co-training", "up to 10 points above co-training"),
        "ambient with sigma_max": ("better than without", "not better"),
        "ambient without weights": ("3 to 9% worse", None),
        "ambient, building towers": ("up to 33% taller than co-training", None),
    }
)
