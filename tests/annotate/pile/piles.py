"""Clean data and a pile beside them: reaching motions in two formats, with known faults."""

import numpy as np

from ambient_jax.annotate import evidence
from ambient_jax.annotate.candidates import Candidate, Measured
from ambient_jax.annotate.pile import results as pile_results
from ambient_jax.annotate.pile import worth
from ambient_jax.annotate.pile.episodes import Scores
from ambient_jax.annotate.pile.results import ALPHA, CLEAN, Results
from ambient_jax.annotate.pile.worth import Curve
from ambient_jax.data import write as rlds
from tests.annotate.made import admits
from tests.data.look import folders

BROKEN = (5, 11)  # episodes of "shaky" whose actions are noise alone


def reaches(seed, count, *, shake=0.0, turn=0.0, broken=(), lengths=(24, 40)):
    """[(state, action)] of smooth ways to random goals, [T, 3] float32 each.

    ``shake`` is white noise on the way, ``turn`` an angle by which all actions are rotated.
    """
    rng, made = np.random.default_rng(seed), []
    rotation = np.eye(3)
    rotation[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    for number in range(count):
        length = int(rng.integers(*lengths))
        s = np.linspace(0, 1, length + 1)[:, None]
        start, goal = rng.uniform(-1, 1, (2, 3))
        way = start + (goal - start) * (10 * s**3 - 15 * s**4 + 6 * s**5)
        way = way + shake * rng.normal(size=way.shape)
        action = way[1:] @ rotation.T
        if number in broken:
            action = rng.uniform(-1, 1, action.shape)
        made.append((way[:-1].astype(np.float32), action.astype(np.float32)))
    return made


def write_rlds(root, name, data):
    """Writes RLDS whose fields are called as those of ``folders.write``; returns the folder."""
    vector = np.zeros(3, np.float32)

    def episodes():
        for state, action in data:
            last = np.arange(len(state)) == len(state) - 1
            flags = {"is_first": np.arange(len(state)) == 0, "is_last": last, "is_terminal": last}
            numbers = {n: np.zeros(len(state), np.float32) for n in ("reward", "discount")}
            yield {"steps": {"observation": {"state": state}, "action": action, **flags, **numbers}}

    features = rlds.rlds_features({"state": vector}, vector)
    how = dict(name=name, version="1.0.0", features=features, episodes=episodes())
    return str(rlds.write_dataset(root, **how))


def write(root, count=12):
    """Writes clean data and the pile; returns their folders by name.

    "shaky" (LeRobot) is the clean motion with noise and two broken episodes; "turned" (RLDS) is
    another motion at all noise levels.
    """
    return {
        "good": folders.write(root / "good", reaches(0, count)),
        "shaky": folders.write(root / "shaky", reaches(1, 3 * count, shake=0.04, broken=BROKEN)),
        "turned": write_rlds(root, "turned", reaches(2, 3 * count, turn=2.5)),
    }


def measured(episodes=10, chunks=12, names=("shaky", "turned"), seed=0):
    """Losses by hand: "shaky" helps above level 0.3 and harms below, "turned" harms everywhere."""
    rng, levels = np.random.default_rng(seed), evidence.grid(13)
    tried = tuple(pile_results.candidates(names, quick=True))
    episode = np.repeat(np.arange(episodes), chunks)
    base = levels[:, None] * np.exp(0.3 * rng.normal(size=episodes))[episode]
    change = {"shaky": np.where(levels > 0.3, -0.2, 0.3), "turned": np.full(len(levels), 0.4)}
    losses = []
    for candidate in tried:
        name = (candidate.corrupt or ("shaky",))[0]
        shift = np.where(admits(candidate, levels), change[name], 0)
        noise = np.exp(0.05 * rng.normal(size=(2, *base.shape)))
        losses.append(base * np.exp(shift)[:, None] * noise)
    fold = (episode >= episodes // 2).astype(int)
    how = dict(variance=10.0, decisions=4.0, natural=0.2)
    return Measured(tried, levels, np.asarray(losses, np.float32), episode, fold, **how)


def scores(seed=0, count=30, broken=()):
    """Scores by hand: P(clean) falls a little with the length; broken episodes look bad."""
    rng, levels = np.random.default_rng(seed), evidence.grid(10)
    length = rng.integers(20, 60, count)
    base = 0.35 - 0.1 * np.log(length / 40) + 0.02 * rng.normal(size=count)
    influence = 1 + 0.3 * rng.normal(size=(7, count))
    base[list(broken)] -= 0.2
    influence[:, list(broken)] -= 5
    clean = base[:, None] + (0.5 - base[:, None]) * levels
    how = dict(levels=levels, influence_levels=evidence.grid(7), influence=influence)
    return Scores(100 + np.arange(count), length, clean=clean, **how)


def curve(times, episodes=(1.25, 2.5, 5.0), slope=-0.3):
    """A learning curve that is a power law, with a little noise of its draws."""
    rng, n = np.random.default_rng(0), np.asarray(episodes)
    noise = 0.02 * rng.normal(size=(len(times), len(n)))
    noise[0] = 0
    return Curve(n, slope * np.log(n) + noise - 2)


def results(names=("shaky", "turned"), folder="/data"):
    """Results by hand of the two data sets."""
    made = measured(names=names)
    times = worth.resampled(made, 200)
    line, findings = curve(times), []
    for i, name in enumerate(names):
        about = dict(name=name, directory=f"{folder}/{name}", format="Rlds")
        own = scores(i, broken=BROKEN if name == "shaky" else ())
        findings.append(pile_results.find(made, line, times, own, **about))
    settings = dict(steps=100, batch_size=64, folds=2, horizon=8, action="action", seed=0)
    settings |= dict(observation=["state"], quick=False, chunks=120, test_episodes=10)
    whole = worth.gain(made, Candidate(ALPHA), CLEAN, times) if len(names) > 1 else None
    return Results({"good": (f"{folder}/good", 10, 300)}, tuple(findings), whole, line, settings)
