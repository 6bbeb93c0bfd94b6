"""Specs, last steps, displacements: lines that cannot be meant, refused before data are read."""

import numpy as np

from ambient_jax import mixing
from ambient_jax.data import bounds, chunk, device, rlds
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.data.write import rlds_features, write_dataset
from ambient_jax.evaluate import evaluation
from ambient_jax.open_x import registry, spec, standardize
from ambient_jax.train import config as train_config
from ambient_jax.train import trainer

ARM = "xyz action[0:3]; rpy action[3:6]; grip action[6]"
SPEC = {"hz": 5, "action": "base action", "state": "observation/state"}
FLAGGED = {"primary": "observation/state | if /metadata/has_it"}
POSES = "xyz state[0:3] | diff; {} state[3:{}] | subtract"


def parse(**lines):
    return lambda b: spec.parse({"hz": 10, "action": ARM} | lines, "mine")


def plain(b, **fields):
    """A config of the shared data, whose actions have two numbers."""
    config = train_config.default()
    config.data.sources.good = train_config.source(b.toy["good"], "clean")
    config.data.horizon = config.policy.execute = 4
    config.data.update(fields)
    return config


def prepare(config):
    return mixtures.open_mixture(config.data, mixing.CoTraining())


def common(b, given=None, **form):
    config = plain(b)
    given = SPEC | (given or {})
    config.data.sources.good = train_config.source(b.toy["good"], "clean", open_x=given)
    config.data.open_x.update({"action_width": 2, "state_width": 2} | form)
    return config


def episodes(lengths, filler=None, flags=(-1,)):
    for i, n in enumerate(lengths):
        state = np.stack([np.full(n, i), np.arange(n)], 1).astype(np.float32)
        action = state + 1
        if filler is not None:
            action[-1] = filler
        marked = np.zeros(n, bool)
        marked[list(flags)] = True
        no = np.zeros(n, bool)
        zeros = np.zeros(n, np.float32)
        yield {
            "steps": {
                "observation": {"state": state},
                "action": action,
                **{"is_first": no, "is_last": marked, "is_terminal": no},
                **{"reward": zeros, "discount": zeros},
            }
        }


def own(b, lengths, open_x="", **more):
    """A config of a data set of its own, whose steps are numbered."""
    vector = np.zeros(2, np.float32)
    path = write_dataset(
        b.path,
        name="own",
        version="1.0.0",
        features=rlds_features({"state": vector}, vector),
        episodes=list(episodes(lengths, **more)),
    )
    config = train_config.default()
    config.data.sources.own = train_config.source(str(path), "clean", open_x=open_x)
    config.data.horizon = config.policy.execute = 2
    config.data.open_x.update({"action_width": 2, "state_width": 2})
    return config


def last_step(config, word, name="good"):
    config.data.sources[name].last_step = word
    return config


def short(b):
    """One step with a difference to the next one."""
    steps = {"s": np.zeros((1, 6)), "g": np.zeros((1, 1))}
    standardize.standardise({"action": "djoint s | diff"}, {"steps": steps})


def missing_bounds(b):
    """Bounds made without the last steps, used with them."""
    config = own(b, (4, 5))
    dataset = rlds.open_dataset(config.data.sources.own.path)
    steps = np.r_[np.arange(3), np.arange(4)]
    number = np.repeat([0, 1], [3, 4])
    made = bounds.for_source("own", dataset.fingerprint, number, steps, 0.4, method="x")
    path = bounds.write(b.path / "b.parquet", made)
    config.data.sources.own.update(role="corrupt", bounds=str(path), last_step="keep")
    config.data.sources.good = train_config.source(b.toy["good"], "clean")
    device.load_device_data(prepare(config))


class Shape:
    """What ``evaluation.recorded`` asks of a policy."""

    history, horizon = 1, 4


def recorded(b):
    config = own(b, (1, 1))
    dataset = rlds.open_dataset(config.data.sources.own.path, last_step="drop")
    evaluation.recorded(RldsSource(dataset), Shape)


CASES = {
    "subtract of quaternions": (
        parse(action=POSES.format("quat", 7)),
        "mine: 'quat state.*expected 'rpy field . subtract'",
    ),
    "subtract of axis and angle": (parse(action=POSES.format("rotvec", 6)), "'rotvec state.*'rpy"),
    "subtract of positions": (
        parse(action="xyz state[0:3] | subtract; rpy zeros"),
        "'xyz state.*other parts and encodings take diff",
    ),
    "subtract and diff": (
        parse(action=POSES.format("rpy", 6) + " | diff"),
        "expected 'rpy field . subtract', without diff",
    ),
    "subtract misspelt": (
        parse(action="xyz s | diff; rpy t | substract"),
        "operation 'substract'.*did you mean 'subtract'",
    ),
    "subtract with a word": (
        parse(action="xyz s | diff; rpy t | subtract 2"),
        "'subtract 2' has 1 words after 'subtract', expected 0",
    ),
    "subtract of a gripper": (
        parse(action="grip g | subtract"),
        "operation 'subtract', expected one of clip, closed",
    ),
    "subtract in the tool's frame": (
        parse(action=POSES.format("rpy", 6), frame="tool"),
        "diff and subtract give motions in the base frame",
    ),
    "last_step of a spec misspelt": (
        parse(last_step="dropp"),
        "mine: last_step is 'dropp', expected one of drop, keep; did you mean 'drop'",
    ),
    "last_step of a spec is a flag": (
        parse(last_step=True),
        "mine: last_step is True, expected a line of text",
    ),
    "drop of the last step": (parse(drop="last"), "mine: drop is 'last', expected one of first"),
    "last step with a blank": (
        parse(**{"last step": "keep"}),
        "key is 'last step'.*did you mean 'last_step'",
    ),
    "last_step of a source misspelt": (
        lambda b: prepare(last_step(plain(b), "keeps")),
        "config.data.sources.good.last_step is 'keeps'.*did you mean 'keep'",
    ),
    "last_step of a source of another word": (
        lambda b: prepare(last_step(common(b), "trim")),
        "config.data.sources.good.last_step is 'trim', expected one of drop, keep",
    ),
    "last_step of a reader": (
        lambda b: rlds.open_dataset(b.toy["good"], last_step="both"),
        "last_step is 'both', expected one of drop, keep",
    ),
    "field of a source misspelt": (
        lambda b: prepare(with_field(plain(b), "laststep", "keep")),
        "is 'laststep', expected one of .*did you mean 'last_step'",
    ),
    "nothing but fillers": (
        lambda b: prepare(own(b, (1, 1, 1))),
        "source 'own' .*no step in its episodes, after 3 left out .*its only step is flagged",
    ),
    "nothing but fillers, by a spec": (
        lambda b: prepare(own(b, (1, 1), SPEC)),
        "source 'own': .*has 1 steps, too few for what its spec drops .*filler of the last one",
    ),
    "nothing but fillers, evaluated": (recorded, "own/1.0.0 has no step in the episodes"),
    "horizon of all but the filler": (
        lambda b: prepare(with_horizon(own(b, (4, 3)), 4)),
        "horizon is 4, longer than every episode .longest: own 3 steps",
    ),
    "one step has no difference": (short, "the episode has 1 steps, too few .*difference"),
    "bounds without the last steps": (
        missing_bounds,
        "2 of 9 steps of source 'own' have no bounds, the first is episode 0 step 3",
    ),
    "flags in the middle are fatal": (
        lambda b: prepare(strict(own(b, (5, 4), SPEC, flags=(2, -1)), "last_step")),
        "episode 0: is_last is set at step 2.*on_problem.last_step to 'skip' or 'keep'",
    ),
    "a policy for flags misspelt": (
        lambda b: prepare(strict(common(b), "flag", "mask")),
        "on_problem.flag is 'mask', expected one of raise, skip, keep",
    ),
    "hold and nobody says what moves": (
        lambda b: trainer.assemble(plain(b, padding="hold"), None),
        "padding is 'hold' and config.data.delta does not state which.*set it to .., none",
    ),
    "delta of a third dimension of two": (
        lambda b: prepare(plain(b, padding="hold", delta=(0, 2))),
        "config.data.delta is .0, 2., expected dimensions of the action, which has 2: 0 to 1",
    ),
    "delta is not read, and wrong all the same": (
        lambda b: prepare(plain(b, padding="mask", delta=(5,))),
        "config.data.delta is .5,., expected dimensions",
    ),
    "delta below zero": (
        lambda b: prepare(plain(b, delta=(-1,))),
        "config.data.delta is .-1,., expected the numbers of the action's dimensions",
    ),
    "delta twice": (lambda b: prepare(plain(b, delta=(0, 0))), "delta is .0, 0., .*each once"),
    "delta of fractions": (lambda b: prepare(plain(b, delta=(0.5,))), "delta is .0.5,., expected"),
    "delta as a mask": (
        lambda b: prepare(plain(b, delta=(True, False))),
        "delta is .True, False., expected the numbers",
    ),
    "delta of names": (lambda b: prepare(plain(b, delta=("x",))), "delta is .'x',., expected the"),
    "delta beside specs": (
        lambda b: prepare(with_delta(common(b), (0,))),
        "config.data.delta is .0,. and all sources have open_x: expected None",
    ),
    "delta of an evaluation": (
        lambda b: evaluation.recorded(
            RldsSource(rlds.open_dataset(b.toy["good"]), delta=(2,)), Shape, padding="hold"
        ),
        "delta is .2,., expected dimensions of the action, which has 2",
    ),
    "padding of another word": (
        lambda b: prepare(plain(b, padding="held")),
        "config.data.padding is 'held', expected one of mask, hold; did you mean 'hold'",
    ),
    "spec whose flag is no field": (
        lambda b: prepare(streamed(common(b, FLAGGED, cameras=("primary",)))),
        "source 'good': .*flag needs 'metadata/has_it', which the data set does not have",
    ),
    "row of the registry misspelt": (
        lambda b: registry.get("bridge_origin"),
        "no data set 'bridge_origin'; did you mean 'bridge_orig'",
    ),
}


def with_field(config, field, value):
    with config.data.sources.unlocked():
        config.data.sources.good[field] = value
    return config


def with_horizon(config, horizon):
    config.data.horizon = horizon
    return config


def with_delta(config, delta):
    config.data.delta = delta
    return config


def strict(config, kind, policy="raise"):
    config.data.open_x.on_problem[kind] = policy
    return config


def streamed(config):
    config.data.placement = "stream"
    return config


WARNED = {
    "hold and nobody says what moves, mixture": (
        lambda b: prepare(plain(b, padding="hold")),
        "config.data.delta does not state which.*until then the last action is repeated",
    ),
    "all episodes end alike": (
        lambda b: prepare(own(b, (4, 5, 6), filler=0.0, flags=())),
        "source 'own' .*all 3 episodes end with the same action .0.0, 0.0., as fillers do",
    ),
    "all episodes of a spec end alike": (
        lambda b: prepare(own(b, (4, 5, 6), SPEC, filler=0.0, flags=())),
        "'last_step' in 3 episodes.*as fillers do",
    ),
    "is_last in the middle": (
        lambda b: prepare(own(b, (5, 4), flags=(1, -1))),
        "'last_step' in 2 episodes.*episode 0: is_last is set at step 1, in the middle",
    ),
    "one episode is a filler alone": (
        lambda b: prepare(own(b, (5, 1, 4))),
        "'last_step' in 1 episodes, 1 of them left out .episode 1: its only step is flagged",
    ),
}


def test_a_mended_config_is_taken(bench):
    """The first remedy of the line about holding."""
    mixture = trainer.assemble(plain(bench, padding="hold", delta=()), None).mixture
    index, episode = next(mixture.datasets["good"].stream(0))
    assert chunk.STILL not in mixture.read(0, index, episode)
