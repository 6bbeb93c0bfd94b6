"""The tables of docs/talks.md: which policy of ours stands beside which printed number."""

from docs.talks import published
from docs.talks.compare import Metric, Order, Row, Table, load

MAZE, PUSHING, SORTING = "maze/results", "planar_pushing/results", "bin_sorting/results"
FEW_CORRECT, OPPOSITE = (f"bin_sorting/results/opposite/{n}" for n in (25, 50))
SCALING, PAPER_PUSHING = "planar_pushing/results/scaling", "paper_pushing/results/pixels"
PLANNING = "arm/results"
SUCCESS, FRESH = Metric("success", "success"), Metric("fresh starts", "success", "fresh starts")
JERK, ACCELERATION = Metric("jerk^2", "jerk"), Metric("accel^2", "acceleration")
SCORE, LOGIC = Metric("score", "score"), Metric("logic", "logic")
EPISODES, MOTION = Metric("whole episodes", "all_placed"), Metric("motion", "completion")
_PAPER_SORTING = LOGIC, MOTION, Metric("success", "score")


def maze_talk() -> Table:
    """100 GCS plans."""
    cotrain = Order("above", "GCS only"), Order("above", "GCS only", 1)
    ambient = (
        *(Order("above", "co-training"), Order("below", "co-training", 1)),
        Order("below", "GCS only", 1),
    )
    rows = (
        Row("GCS only", "gcs"),
        Row("co-training", "cotrain", cotrain),
        Row("ambient, best sigma_min", load(MAZE)["best sigma_min"], ambient),
        Row("RRT only", "rrt", (Order("above", "ambient, best sigma_min"),)),
    )
    return Table(MAZE, (SUCCESS, JERK), {"talk": published.MAZE_TALK}, rows)


def maze_paper() -> Table:
    """50 GCS plans."""
    best = load(MAZE)["best sigma_min"]
    ambient = (
        *(Order("not below", "co-training"), Order("below", "co-training", 1)),
        Order("below", "GCS only", 1),
    )
    cotrain = Order("above", "GCS only"), Order("above", "GCS only", 1)
    exclusive = Order("not below", "ambient, best sigma_min", 0, best)
    rows = (
        Row("GCS only", "gcs_few"),
        Row("co-training", "cotrain_few", cotrain),
        Row("ambient, best sigma_min", f"{best}_few", ambient),
        Row("exclusive bands", "exclusive", (exclusive,)),
    )
    return Table(MAZE, (SUCCESS, ACCELERATION), {"paper": published.MAZE_PAPER}, rows)


def pushing() -> Table:
    """50 target demonstrations."""
    best = load(PUSHING)["best"]
    reweighted, swept = "co-training, best alpha", "ambient per data set, swept"
    datapoint, bucket = "ambient per datapoint, by classifier", "ambient in random buckets of 100"
    half = "the same, half of the weight on target data"
    alike = (Order("above", reweighted), Order("above", swept))
    shared = (Order("above", reweighted), Order("above", swept, 0, best["best"]))
    local = Order("not above", datapoint, 0, best["best natural"], "without it")
    rows = (
        Row("source only", "source", (Order("below", "target only"),)),
        Row("target only", "target"),
        Row("co-training by number", "cotrain"),
        Row(
            reweighted,
            best["best alpha"],
            (Order("above", "target only"), Order("above", "co-training by number")),
        ),
        Row(swept, best["best natural"], (Order("above", reweighted),)),
        Row(half, best["best"], (Order("above", reweighted),), printed=False),
        Row(datapoint, "datapoint", alike),
        Row(half, "datapoint_alpha_0.5", shared, printed=False),
        Row(bucket, "random_100", (Order("above", datapoint),)),
        Row(
            half,
            "random_100_alpha_0.5",
            (Order("above", datapoint, 0, "datapoint_alpha_0.5"),),
            printed=False,
        ),
        Row("ambient with sigma_max", best["best omni"], (local,)),
    )
    printed = {"talk": published.PUSHING_TALK, "paper": published.PUSHING_PAPER}
    return Table(PUSHING, (SUCCESS, FRESH), printed, rows)


def pushing_paper() -> Table:
    """The paper's tolerance and pusher pose, from two cameras."""
    best = load(PAPER_PUSHING)["best"]
    reweighted, swept = "co-training, best alpha", "ambient per data set, swept"
    rows = (
        Row("target only", "target"),
        Row(reweighted, best["best alpha"], (Order("above", "target only"),)),
        Row(swept, best["best"], (Order("above", reweighted), Order("above", "target only"))),
    )
    metric = Metric("success", "success", "fresh starts")
    return Table(PAPER_PUSHING, (metric,), {"paper": published.PUSHING_PAPER}, rows)


def few() -> Table:
    """10 target demonstrations, of which the talk shows a figure."""
    best, reweighted = load(PUSHING)["best"], "co-training, best alpha"
    rows = (
        Row("target only", "target_few"),
        Row(reweighted, f"{best['best alpha']}_few", (Order("above", "target only"),)),
        Row(
            f"ambient, {best['best natural'].replace('ambient_', 'sigma_min ')}",
            f"{best['best natural']}_few",
            (Order("above", reweighted),),
        ),
    )
    return Table(PUSHING, (SUCCESS,), {}, rows)


def sorting_talk() -> Table:
    """200 arbitrary demonstrations."""
    correct, told, omni = "correct only", "co-training, told the task", "omni, best sigma_max"
    at_theirs = f"the same at the talk's {published.SORTING_SIGMA_MAX['talk']:g}"
    cotrain = Order("below", correct), Order("above", correct, 1), Order("below", correct, 2)
    rows = (
        Row(correct, "correct"),
        Row("co-training", "cotrain_arbitrary", cotrain),
        Row(told, "task_arbitrary", (Order("above", correct),)),
        Row(
            omni,
            load(SORTING)["best"]["arbitrary"],
            (Order("above", correct), Order("above", told), Order("above", told, 2)),
        ),
        Row(
            at_theirs,
            f"omni_arbitrary_{published.SORTING_SIGMA_MAX['talk']:g}",
            (Order("above", correct), Order("above", told)),
            printed=False,
        ),
    )
    return Table(SORTING, (SCORE, EPISODES, LOGIC), {"talk": published.SORTING_TALK}, rows)


def _opposite(results):
    """The rows of correct demonstrations alone, co-training and omni with opposite ones."""
    correct, omni = "correct only", "omni, best sigma_max"
    above = (
        *(Order("above", correct, 2), Order("not below", correct)),
        *(Order("above", correct, 1), Order("above", "co-training", 1)),
    )
    mixed = Order("below", correct, 2), Order("above", correct, 1)
    return (
        Row(correct, "correct"),
        Row("co-training", "cotrain_opposite", mixed),
        Row(omni, load(results)["best"]["opposite"], above),
    )


def sorting_paper() -> Table:
    """200 opposite demonstrations."""
    correct, cotrain, omni = _opposite(SORTING)
    exclusive = Order("not below", omni.policy, 0, load(SORTING)["best"]["arbitrary"])
    rows = (
        correct,
        Row("opposite only", "only_opposite", (Order("below", "co-training", 2),)),
        cotrain,
        Row("co-training, told the task", "task_opposite", (Order("below", omni.policy, 2),)),
        omni,
        Row("exclusive bands", "exclusive", (exclusive,)),
    )
    return Table(SORTING, _PAPER_SORTING, {"paper": published.SORTING_PAPER}, rows)


def sorting_few() -> Table:
    """The same with 25 correct demonstrations."""
    printed = {"paper": published.SORTING_PAPER}
    return Table(FEW_CORRECT, _PAPER_SORTING, printed, _opposite(FEW_CORRECT))


def planning() -> Table:
    """7 joints, whole plans executed open loop."""
    task = load(PLANNING)["config"]["task"]
    filtering, cotrain, ambient = published.PLANNING_PAPER.numbers
    rows = (
        Row(filtering, "smooth"),
        Row(
            cotrain,
            f"alpha_{task['share']}",
            (Order("above", filtering), Order("above", filtering, 1)),
        ),
        Row(
            ambient,
            f"ambient_{task['best']}",
            (Order("above", cotrain), Order("above", filtering), Order("below", cotrain, 1)),
        ),
    )
    return Table(PLANNING, (SUCCESS, ACCELERATION), {"paper": published.PLANNING_PAPER}, rows)
