"""The demonstrators: OMPL's RRT-Connect as it comes, and smooth plans optimised from it."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ambient_jax._checks import one_of
from experiments import demos
from experiments.arm import problems, smooth, timing
from experiments.arm.problems import NOMINAL, Problem
from experiments.arm.scene import JOINTS, Arm

CLEARANCE = 0.03  # m, of RRT-Connect

RESOLUTION = 0.04  # rad (Euclidean norm): the most between two tested configurations
RANGE = 0.1  # rad, of an extension of RRT-Connect
_STARTS = 6  # searches of which the smooth planner optimises the shortest
REACH = 1.5  # rad from the nominal configuration: where it searches, within the limits
_SECONDS = 4.0  # limit of a search


def segment_is_free(arm: Arm, a: np.ndarray, b: np.ndarray, resolution: float = RESOLUTION) -> bool:
    """Whether the straight motion from configuration a to b [7] is free, without a itself."""
    count = max(1, int(np.ceil(np.linalg.norm(b - a) / resolution)))
    # Coarse first: what collides is found early.
    order = sorted(range(1, count + 1), key=lambda i: (-(i & -i), i))
    return not any(arm.collides(a + (b - a) * (i / count)) for i in order)


def path_is_free(arm: Arm, path: np.ndarray, resolution: float = RESOLUTION) -> bool:
    """Whether the motion along the waypoints [P, 7] is free."""
    return not arm.collides(path[0]) and all(
        segment_is_free(arm, a, b, resolution) for a, b in zip(path[:-1], path[1:], strict=True)
    )


class RrtConnect:
    """OMPL's RRT-Connect in a scene (that of ``arm``, which callers place)."""

    def __init__(self, arm: Arm, *, range: float = RANGE):
        from ompl import base, geometric, util

        self._base, self._geometric, self._util = base, geometric, util
        self._arm, self._range = arm, range
        low, high = arm.limits.T
        self._box = np.stack(
            [np.maximum(NOMINAL - REACH, low), np.minimum(NOMINAL + REACH, high)], 1
        )

        class Motions(base.MotionValidator):
            def checkMotion(self, a, b, *_):  # noqa: N802 (the name is OMPL's)
                return segment_is_free(arm, _array(a), _array(b))

        self._motions = Motions

    def __call__(
        self, start: np.ndarray, goal: np.ndarray, seed: int, *, shortcut: bool = False
    ) -> np.ndarray | None:
        """Returns waypoints [P, 7] from start to goal, or None if time ran out; ``shortcut``: with
        OMPL's random shortcuts."""
        base, util = self._base, self._util
        util.noOutputHandler()
        try:
            # OMPL reports an error if it has drawn before, yet does reseed what is made below.
            util.RNG.setSeed(seed)
            space, bounds = base.RealVectorStateSpace(JOINTS), base.RealVectorBounds(JOINTS)
            for joint, (low, high) in enumerate(self._box):
                bounds.setLow(joint, low)
                bounds.setHigh(joint, high)
            space.setBounds(bounds)
            setup = self._geometric.SimpleSetup(space)
            information = setup.getSpaceInformation()
            motions = self._motions(information)
            information.setMotionValidator(motions)
            setup.setStateValidityChecker(lambda s: not self._arm.collides(_array(s)))
            ends = space.allocState(), space.allocState()
            for state, q in zip(ends, (start, goal), strict=True):
                for joint in range(JOINTS):
                    state[joint] = float(q[joint])
            setup.setStartAndGoalStates(*ends)
            planner = self._geometric.RRTConnect(information)
            planner.setRange(self._range)
            setup.setPlanner(planner)
            setup.solve(_SECONDS)
            if not setup.haveExactSolutionPath():
                return None
            path = setup.getSolutionPath()
            if shortcut:
                simplifier = self._geometric.PathSimplifier(information)
                simplifier.partialShortcutPath(path)
                simplifier.reduceVertices(path)
            return np.array([_array(state) for state in path.getStates()])
        finally:
            util.restorePreviousOutputHandler()


def _array(state: Any) -> np.ndarray:
    return np.array([state[joint] for joint in range(JOINTS)])


class Planner:
    """One of the two: ``rrt`` or ``smooth``."""

    def __init__(self, name: str):
        one_of("planner", name, PLANNERS)
        self._smooth = name == "smooth"
        self._arm, self._free = Arm(clearance=CLEARANCE), Arm()
        self._ends, self._far = Arm(clearance=problems.CLEARANCE), Arm(clearance=smooth.MARGIN)
        self._search = RrtConnect(self._arm)

    def __call__(self, problem: Problem, seed: int) -> np.ndarray | None:
        """Returns a plan [STEPS + 1, 7], a pure function; None if none was found, or it collides
        or takes too long once it is timed."""
        for arm in (self._arm, self._free, self._far):
            arm.place(problem.scene)
        count = _STARTS if self._smooth else 1
        ends = problem.start, problem.goal
        searched = (self._search(*ends, seed + i, shortcut=self._smooth) for i in range(count))
        paths = [path for path in searched if path is not None]
        if not paths:
            return None
        path = min(paths, key=_length)
        if self._smooth:
            path = smooth.optimised(self._far, path)
        plan = timing.timed(path, smooth=self._smooth)
        return plan if plan is not None and path_is_free(self._free, plan) else None

    def attempt(self, seed: int, index: int) -> tuple[Problem, np.ndarray | None]:
        """Returns attempt ``index`` of a stream of problems: (problem, plan or None)."""
        rng = np.random.default_rng([seed, index])
        problem = problems.draw([seed, index], self._ends)
        return problem, self(problem, int(rng.integers(1, 2**31 - 100)))


PLANNERS = ("smooth", "rrt")


def _length(path: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())


@functools.lru_cache(maxsize=2)
def _planner(name: str) -> Planner:
    return Planner(name)


def _planned(name, seed, index):
    problem, plan = _planner(name).attempt(seed, index)
    return None if plan is None else (problem, plan)


def generate(
    name: str, count: int, seed: int, *, workers: int | None = None, progress: bool = True
) -> Iterator[tuple[int, tuple[Problem, np.ndarray]]]:
    """Yields (attempt, (problem, plan)) of the first ``count`` successful attempts of a planner,
    see ``demos.successes``."""
    one_of("planner", name, PLANNERS)
    job = functools.partial(_planned, name, seed)
    return demos.successes(job, count, label=name, workers=workers, progress=progress)
