"""The demonstrators of the maze: graphs of convex sets (smooth), RRT (jagged), shortcut RRT.

All keep ``PADDING`` to every wall, start at the world's start, end at their goal exactly, and
return positions [T + 1, 2] in metres, 0.1 s apart, never faster than 1 m/s (Euclidean norm).
"""

import contextlib
import dataclasses
import functools
import logging as python_logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ambient_jax._checks import one_of
from experiments import demos
from experiments.maze.env import DT, PADDING, WORLD, World, collides, free_goals

MAX_SPEED = 1.0  # metres per second
Plan = Callable[[np.ndarray, int], "np.ndarray | None"]  # (goal, seed) -> positions


def free_rectangles(padding: float = PADDING, world: World = WORLD) -> np.ndarray:
    """Returns [R, 2, 2] maximal free rectangles, each (lower corner, upper corner) in metres.

    The padded walls' coordinates cut the plane into cells; the maximal rectangles of free cells
    cover the free space exactly and overlap wherever a path may cross (20 in the maze). A partition
    would force a path through more and smaller rectangles, with less room to bend.
    """
    padded = world.padded(padding)
    left, right, bottom, top = np.asarray(padded.boxes, float).reshape(-1, 4).T

    def cuts(*walls: np.ndarray) -> np.ndarray:
        clipped = np.clip(np.concatenate(walls), padded.low, padded.high)
        # Walls that meet by design differ by rounding once padded: do not cut slivers there.
        return np.unique(np.round([padded.low, padded.high, *clipped], 9))

    xs, ys = cuts(left, right), cuts(bottom, top)
    x, y = (xs[1:, None, None] + xs[:-1, None, None]) / 2, (ys[1:, None] + ys[:-1, None]) / 2
    free = ~((x > left) & (x < right) & (y > bottom) & (y < top)).any(-1)

    rectangles = []
    for i in range(len(free)):
        for j in range(i, len(free)):
            for k, end in _runs(free[i : j + 1].all(0)):
                grows_left = i > 0 and free[i - 1, k:end].all()
                grows_right = j + 1 < len(free) and free[j + 1, k:end].all()
                if not grows_left and not grows_right:
                    rectangles.append([(xs[i], ys[k]), (xs[j + 1], ys[end])])
    return np.array(rectangles)


def _runs(row: np.ndarray) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


class GcsPlanner:
    """Bezier curves of order 3 through free rectangles (Marcucci et al. 2023, with Drake).

    Costs of weight 1: time under velocity bounds, path length and energy; C1 continuity. Drake
    plays each segment at its own pace, so velocity jumps at the border of two regions: only the
    curve is used, all segments normalised to one duration, and travelled at 1 m/s. Without the
    energy cost, which spaces the control points, a segment of length zero lets the curve turn on
    the spot.
    """

    def __init__(self, world: World = WORLD):
        from pydrake.geometry.optimization import GraphOfConvexSetsOptions, HPolyhedron, Point
        from pydrake.planning import GcsTrajectoryOptimization
        from pydrake.solvers import ClarabelSolver

        self._world, self._point = world, Point
        self._normalise = GcsTrajectoryOptimization.NormalizeSegmentTimes
        self._options = GraphOfConvexSetsOptions()
        self._options.convex_relaxation = True
        self._options.preprocessing = True
        self._options.max_rounded_paths = 30
        self._options.solver = ClarabelSolver()
        self._gcs = gcs = GcsTrajectoryOptimization(2)
        boxes = [HPolyhedron.MakeBox(low, high) for low, high in free_rectangles(world=world)]
        self._regions = gcs.AddRegions(boxes, order=3, h_min=0.0, h_max=20.0)
        self._start = gcs.AddRegions([Point(world.start)], order=0, h_min=0.0, h_max=0.0)
        gcs.AddEdges(self._start, self._regions)
        gcs.AddTimeCost(1.0)
        gcs.AddPathLengthCost(1.0)
        gcs.AddPathEnergyCost(1.0)
        gcs.AddVelocityBounds(np.full(2, -MAX_SPEED), np.full(2, MAX_SPEED))
        gcs.AddPathContinuityConstraints(1)

    def __call__(self, goal: np.ndarray, seed: int = 0) -> np.ndarray | None:
        """Returns positions [T + 1, 2] to ``goal`` [2], or None if there is no plan; ``seed`` is
        unused."""
        del seed
        goal = np.asarray(goal, float)
        target = self._gcs.AddRegions([self._point(goal)], order=0, h_min=0.0, h_max=0.0)
        try:
            with _quiet_drake():
                self._gcs.AddEdges(self._regions, target)
                trajectory, result = self._gcs.SolvePath(self._start, target, self._options)
        finally:
            self._gcs.RemoveSubgraph(target)
        if not result.is_success():
            return None
        curve = self._normalise(trajectory)
        # 400 points on each segment: the chords' error is below a micrometre.
        count = 400 * curve.get_number_of_segments() + 1
        points = curve.vector_values(np.linspace(curve.start_time(), curve.end_time(), count)).T
        points[0], points[-1] = self._world.start, goal
        return at_constant_speed(points)


def at_constant_speed(points: np.ndarray) -> np.ndarray:
    """Returns positions [T + 1, 2], 0.1 s apart, along a polyline [P, 2] at the highest constant
    speed <= 1 m/s whose duration is a whole number of steps. Keeps both ends exactly."""
    length = np.concatenate([[0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    steps = max(1, math.ceil(length[-1] / (MAX_SPEED * DT) - 1e-9))
    at = np.linspace(0.0, length[-1], steps + 1)
    return np.stack([np.interp(at, length, axis) for axis in points.T], 1)


class RrtPlanner:
    """OMPL's geometric RRT, range 0.1 m, goal bias 0.05, not smoothed.

    Every vertex of the path is one step of 0.1 s: an extension is at most 0.1 m long (96% are
    exactly that), so speed stays within 1 m/s and every edge has been tested.
    """

    def __init__(self, world: World = WORLD):
        from ompl import base, geometric, util

        self._base, self._geometric, self._util = base, geometric, util
        self._world = world
        clear = functools.partial(_clear, world.padded(PADDING))

        class Motions(base.MotionValidator):
            def checkMotion(self, a, b, *_):  # noqa: N802 (the name is OMPL's)
                return clear(a[0], a[1], b[0], b[1])

        self._motions, self._clear = Motions, clear

    def __call__(self, goal: np.ndarray, seed: int) -> np.ndarray | None:
        """Returns positions [T + 1, 2] to ``goal`` [2], or None if time ran out: a pure function of
        (goal, seed), in any process and after any other plan."""
        if not seed > 0:
            raise ValueError(f"seed is {seed}, expected a positive integer (OMPL ignores others)")
        base, util = self._base, self._util
        util.noOutputHandler()
        try:
            # OMPL reports an error if it has drawn before, yet does reseed the generator from
            # which each sampler made *afterwards* takes its seed; all are made below, per plan.
            util.RNG.setSeed(seed)
            space, bounds = base.RealVectorStateSpace(2), base.RealVectorBounds(2)
            bounds.setLow(self._world.low)
            bounds.setHigh(self._world.high)
            space.setBounds(bounds)
            setup = self._geometric.SimpleSetup(space)
            information = setup.getSpaceInformation()
            motions = self._motions(information)
            information.setMotionValidator(motions)
            setup.setStateValidityChecker(lambda s: self._clear(s[0], s[1], s[0], s[1]))
            start, end = space.allocState(), space.allocState()
            start[0], start[1] = self._world.start
            end[0], end[1] = (float(x) for x in goal)
            setup.setStartAndGoalStates(start, end)
            rrt = self._geometric.RRT(information)
            rrt.setRange(MAX_SPEED * DT)
            rrt.setGoalBias(0.05)
            setup.setPlanner(rrt)
            setup.solve(60.0)  # seconds
            if not setup.haveExactSolutionPath():
                return None
            return self._positions(information, setup.getSolutionPath())
        finally:
            util.restorePreviousOutputHandler()

    def _positions(self, information: Any, path: Any) -> np.ndarray:
        return np.array([(state[0], state[1]) for state in path.getStates()])


class ShortcutPlanner(RrtPlanner):
    """RRT's path with OMPL's random shortcuts, travelled at constant speed: a milder corruption.

    A step across a corner cuts it: the path is nearer to a wall than ``PADDING`` by up to 0.05 m.
    """

    def _positions(self, information: Any, path: Any) -> np.ndarray:
        simplifier = self._geometric.PathSimplifier(information)
        simplifier.partialShortcutPath(path)
        simplifier.reduceVertices(path)
        return at_constant_speed(super()._positions(information, path))


def _clear(world: World, x0: float, y0: float, x1: float, y1: float) -> bool:
    # The test of env.collides in plain floats: RRT asks for one edge at a time, and there numpy's
    # call overhead is ten times the arithmetic.
    x_low, x_high = (x0, x1) if x0 < x1 else (x1, x0)
    y_low, y_high = (y0, y1) if y0 < y1 else (y1, y0)
    if x_low <= world.low or y_low <= world.low or x_high >= world.high or y_high >= world.high:
        return False
    dx, dy = x1 - x0, y1 - y0
    for left, right, bottom, top in world.boxes:
        if x_high >= left and x_low <= right and y_high >= bottom and y_low <= top:
            a, b = dx * (bottom - y0), dx * (top - y0)
            c, d = dy * (left - x0), dy * (right - x0)
            side = (a - c, a - d, b - c, b - d)
            if min(side) <= 0 <= max(side):
                return False
    return True


@contextlib.contextmanager
def _quiet_drake() -> Iterator[None]:
    logger = python_logging.getLogger("drake")
    level = logger.level
    logger.setLevel(python_logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


PLANNERS: dict[str, Callable[[], Plan]] = {
    "gcs": GcsPlanner,
    "rrt": RrtPlanner,
    "shortcut": ShortcutPlanner,
}


@dataclasses.dataclass(frozen=True)
class Plans:
    """N plans: ``attempts[i]`` numbers the attempt of plan i; ``failures`` counts the attempts in
    between that gave no plan or one that collides."""

    positions: list[np.ndarray]
    goals: np.ndarray
    attempts: np.ndarray
    failures: int


def attempt(planner: str, seed: int, index: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns attempt ``index`` of a planner's stream: (goal [2], positions [T + 1, 2]), a pure
    function. None if no plan was found, or one that collides (judged without padding)."""
    rng = np.random.default_rng([seed, *planner.encode(), index])
    goal = free_goals(rng, 1)[0]
    positions = _planner(planner)(goal, int(rng.integers(1, 2**31)))
    if positions is None or collides(positions[:-1], positions[1:]).any():
        return goal, None
    return goal, positions


@functools.lru_cache(maxsize=2)
def _planner(name: str) -> Plan:
    return PLANNERS[name]()


def generate(
    planner: str, n: int, *, seed: int = 0, workers: int | None = None, progress: bool = True
) -> Plans:
    """Returns the first n successful attempts of a planner, see ``demos.successes``; raises
    ValueError for bad arguments and if more than half of the attempts fail."""
    one_of("planner", planner, PLANNERS)
    if n < 0 or seed < 0:
        raise ValueError(f"n is {n} and seed {seed}, expected both non-negative")
    job = functools.partial(_planned, planner, seed)
    options = dict(label=planner, workers=workers, progress=progress)
    try:
        numbered = list(demos.successes(job, n, **options))
    except (ValueError, ChildProcessError) as error:
        kind = ChildProcessError if isinstance(error, ChildProcessError) else ValueError
        raise kind(
            f"{planner} plans: {error}; planners.attempt plans one goal, workers=1 plans all of "
            "them in this process"
        ) from error
    attempts = [index for index, _ in numbered]
    goals, positions = ([plan[i] for _, plan in numbered] for i in (0, 1))
    failures = attempts[-1] + 1 - n if attempts else 0
    return Plans(positions, np.reshape(goals, (-1, 2)), np.array(attempts, int), failures)


def _planned(planner, seed, index):
    goal, positions = attempt(planner, seed, index)
    return None if positions is None else (goal, positions)
