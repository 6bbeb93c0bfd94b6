"""The step with ``is_last``: by RLDS's definition an observation with a filler for its action."""

import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.data import bounds, device, pipeline, rlds, statistics
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.evaluate import evaluation
from ambient_jax.open_x import source as open_x
from ambient_jax.open_x import standardize

LAW, VP = mixing.Ambient(), schedules.vp()
SPEC = {"hz": 5, "action": "base action", "state": "observation/state"}
FILLER = -7.0  # no real action is negative


def ending(number, length, flagged=(-1,), filler=True):
    """State and action are (episode, step), the last action is a filler; ``is_last`` is set on some
    steps."""
    where = np.stack([np.full(length, number), np.arange(length)], -1).astype(np.float32)
    flags = {n: np.zeros(length, bool) for n in ("is_first", "is_last", "is_terminal")}
    flags["is_last"][list(flagged)] = True
    rewards = {n: np.zeros(length, np.float32) for n in ("reward", "discount")}
    action = where + 0.25
    if filler:
        action[-1] = FILLER
    observation = {"state": where, "goal": where[:, :1]}
    return {"steps": {"observation": observation, "action": action, **flags, **rewards}}


def batches(mixture, count=10, rows=64):
    """Batches of both placements."""
    sampler = jax.jit(mixture.sampler(LAW, VP))
    data = device.load_device_data(mixture)
    yield from (sampler(data, jax.random.key(0), i, jnp.arange(rows)) for i in range(count))
    stream = pipeline.stream_batches(mixture, LAW, VP, seed=0, batch_size=rows)
    yield from (next(stream) for _ in range(count))
    stream.close()


def of(spec, **options):
    """Options of a source, in the common form or as it is."""
    return {**options, "open_x": spec} if spec else options


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
@pytest.mark.parametrize("spec", [None, SPEC])
def test_a_filler_is_no_sample(make_config, file_format, spec):
    lengths = (6, 5, 9) if spec else (6, 1, 5, 9)
    episodes = [ending(i, n) for i, n in enumerate(lengths)]
    config = make_config({"a": (episodes, "clean", of(spec))}, file_format=file_format)
    if spec:
        config.open_x.update(action_width=2, state_width=2)
    mixture = mixtures.open_mixture(config, LAW)
    left = np.array(lengths) - 1
    found = mixture.statistics["a"]
    assert found.lengths.tolist() == left.tolist()
    assert found.fields["action"].min.min() >= 0 and mixture.chunks.tolist() == [left.sum()]
    assert mixture.datasets["a"].episode_ids.tolist() == list(range(len(lengths)))
    seen = set()
    for batch in batches(mixture):
        batch = jax.device_get(batch)
        _, episode, step = batch["id"].T
        assert np.all(step < left[episode]) and batch["action"].min() >= 0
        seen |= set(zip(episode.tolist(), step.tolist(), strict=True))
        state = batch["observation"]["state"][:, -1]
        np.testing.assert_array_equal(state, np.stack([episode, step], 1))
        inside = step[:, None] + np.arange(4) < left[episode][:, None]
        np.testing.assert_array_equal(batch["mask"], inside)
    assert seen == {(e, t) for e, n in enumerate(left.tolist()) for t in range(n)}
    shape = types.SimpleNamespace(chain=mixture.chain, history=2, horizon=4)
    chunks = evaluation.recorded(mixture.datasets["a"], shape)
    assert {tuple(o) for o in chunks.origin.tolist()} == seen and chunks.action.min() >= 0


@pytest.mark.parametrize("spec", [None, SPEC])
def test_what_is_kept_and_what_has_no_flag(make_config, spec):
    def lengths(flagged=(-1,), line="", source=""):
        episodes = [ending(i, n, flagged) for i, n in enumerate((6, 5, 9))]
        lines = spec and spec | ({"last_step": line} if line else {})
        config = make_config({"a": (episodes, "clean", of(lines, last_step=source))})
        if spec:
            config.open_x.update(action_width=2, state_width=2)
        return mixtures.open_mixture(config, LAW).statistics["a"].lengths.tolist()

    assert lengths() == [5, 4, 8]
    assert lengths(source="keep") == [6, 5, 9]
    assert lengths(flagged=()) == [6, 5, 9]
    if spec:  # its line says what the data are, the source's field has the last word
        assert lengths(line="keep") == [6, 5, 9]
        assert lengths(line="keep", source="drop") == [5, 4, 8]
        assert lengths(line="drop", source="keep") == [6, 5, 9]


def test_statistics_of_dropped_and_kept_steps_do_not_mix(make_config):
    """One cache, one data set, both readings."""
    least = []
    for last in ("keep", "drop", "keep"):
        config = make_config({"a": ([ending(0, 6), ending(1, 5)], "clean", {"last_step": last})})
        least.append(mixtures.open_mixture(config, LAW).statistics["a"].fields["action"].min[0])
    assert least == [FILLER, 0.25, FILLER]


def test_bounds_join_by_id(make_config, tmp_path):
    """A file over all stored steps serves whoever drops the last ones; not the other way round."""
    a, b = [ending(0, 6), ending(1, 5)], [ending(0, 12)]
    config = make_config({"a": (a, "clean", {}), "b": (b, "corrupt", {"sigma_min": 0.3})})
    dataset = rlds.open_dataset(f"{config.root}/b")
    for count in (12, 11):
        path = tmp_path / f"{count}.parquet"
        step = np.arange(count)
        low = np.linspace(0.1, 0.9, 12)[:count].astype(np.float32)
        made = bounds.for_source(
            "b", dataset.fingerprint, np.zeros(count, int), step, low, method="test"
        )
        bounds.write(path, made)
        config.sources.b.update(bounds=str(path), sigma_min=0.0)
        data = device.load_device_data(mixtures.open_mixture(config, LAW))
        assert data.size.tolist() == [9] + [1] * 11
        np.testing.assert_allclose(data.sources.sigma_min[1:], low[:11])
    config.sources.b.last_step = "keep"
    with pytest.raises(ValueError, match="1 of 12 steps of source 'b' have no bounds.*step 11"):
        device.load_device_data(mixtures.open_mixture(config, LAW))


def test_a_resampled_motion_leaves_the_filler_out():
    """Two steps of 5 Hz are one of 2.5 Hz: displacements add up, and the filler's does not."""
    steps = {
        "action": np.array([[1.0], [2], [4], [8], [FILLER]]),
        "is_last": np.arange(5) == 4,
        "reward": np.arange(5.0),
    }
    spec = {"hz": 5, "action": "djoint action", "last_step": "drop"}
    out = standardize.standardise(spec, {"steps": steps}, hz=2.5)["steps"]
    assert out["action"].ravel().tolist() == [3, 12]
    assert out["reward"].tolist() == [0 + 1, 2 + 3 + 4]  # what the last step tells stays
    assert out["is_last"].tolist() == [False, True]
    # Differences have dropped it already: it is the step that says where the motion ended.
    spec = {"action": "djoint action | diff", "last_step": "drop"}
    out = standardize.standardise(spec, {"steps": steps})["steps"]
    assert out["action"].ravel().tolist() == [1, 2, 4, FILLER - 8]


def test_stock_reading_is_untouched(make_config):
    config = make_config({"a": ([ending(0, 6)], "clean", {})})
    (episode,) = rlds.open_dataset(f"{config.root}/a")
    assert len(episode["steps"]["action"]) == 6
    fields = ("steps/action",)
    (lean,) = rlds.open_dataset(f"{config.root}/a", keys=fields, last_step="drop")
    assert set(lean["steps"]) == {"action", "is_last"} and len(lean["steps"]["action"]) == 5


def told(make_config, episodes, caplog, spec=None, **options):
    config = make_config({"a": (episodes, "clean", of(spec, **options))})
    if spec:
        config.open_x.update(action_width=2, state_width=2)
    with caplog.at_level(logging.WARNING, "absl"):
        mixture = mixtures.open_mixture(config, LAW)
    problems = mixture.problems["a"]
    return [r.getMessage() for r in caplog.records], problems


@pytest.mark.parametrize("spec", [None, SPEC])
@pytest.mark.parametrize("last", ["drop", "keep"])
def test_a_flag_in_the_middle(make_config, caplog, spec, last):
    episodes = [ending(0, 6, (2, -1)), ending(1, 5), ending(2, 5, (3, -1))]
    lines, problems = told(make_config, episodes, caplog, spec, last_step=last)
    assert problems["last_step"]["episodes"] == 2 and problems["last_step"]["skipped"] == 0
    (line,) = lines
    assert "'last_step' in 2 episodes" in line and "episode 0: is_last is set at step 2" in line


@pytest.mark.parametrize("spec", [None, SPEC])
def test_last_actions_that_are_all_alike_are_doubtful(make_config, caplog, spec):
    episodes = [ending(i, n, flagged=()) for i, n in enumerate((6, 5, 9))]
    lines, problems = told(make_config, episodes, caplog, spec)
    assert problems["last_step"]["episodes"] == 3
    (line,) = lines
    assert "all 3 episodes end with the same action [-7.0, -7.0]" in line, line


def test_nothing_is_doubtful_of_real_ends(make_config, caplog):
    real = [ending(i, n, flagged=(), filler=False) for i, n in enumerate((6, 5, 9))]
    assert told(make_config, real, caplog) == ([], {})


def test_one_episode_or_a_word_of_the_user_is_not_doubted(make_config, caplog):
    assert told(make_config, [ending(0, 6, ())], caplog) == ([], {})


def test_episodes_of_one_step(make_config, caplog):
    lines, problems = told(make_config, [ending(0, 6), ending(1, 1), ending(2, 4)], caplog)
    assert problems["last_step"]["skipped"] == 1
    assert "1 of them left out (episode 1: its only step is flagged is_last" in lines[0]
    config = make_config(
        {"none": ([ending(0, 1), ending(1, 1)], "clean", {})}, horizon=1, file_format="tfrecord"
    )
    with pytest.raises(ValueError, match="source 'none' .* no step .*, after 2 left out .*is_last"):
        mixtures.open_mixture(config, LAW)


def test_spec_sources_of_one_step(make_config):
    config = make_config({"a": ([ending(0, 1), ending(1, 9)], "clean", of(SPEC))})
    config.open_x.update(action_width=2, state_width=2)
    with pytest.raises(ValueError, match="source 'a': .*has 1 steps, too few for what its spec"):
        mixtures.open_mixture(config, LAW)
    config.open_x.on_problem.episode = "skip"
    assert mixtures.open_mixture(config, LAW).statistics["a"].lengths.tolist() == [0, 8]


def test_low_level_statistics_are_of_all_that_is_stored(make_config):
    config = make_config({"a": ([ending(0, 6)], "clean", {})})
    found = statistics.compute(RldsSource(rlds.open_dataset(f"{config.root}/a"), "a"))
    assert found.num_steps == 6 and found.fields["action"].min[0] == FILLER


def test_open_source_drops_unless_told(make_config):
    config = make_config({"a": ([ending(0, 6)], "clean", {})})
    form = open_x.CommonForm(action_width=2, state_width=2)
    path = f"{config.root}/a"
    assert len(open_x.open_source(path, "train", SPEC, form)[0]["steps"]["action"]) == 5
    kept = open_x.open_source(path, "train", SPEC, form, last_step="keep")
    assert len(kept[0]["steps"]["action"]) == 6
    assert kept.fingerprint != open_x.open_source(path, "train", SPEC, form).fingerprint
