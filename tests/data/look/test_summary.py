"""The figures of a summary are NumPy's; planted faults are listed with episode and step."""

import collections

import numpy as np
import pyarrow.parquet as pq
import pytest

from ambient_jax.data import storage
from ambient_jax.data.look import samples
from ambient_jax.data.look import summary as summaries
from tests.data.look import folders


def summarise(path, split="train", **options):
    dataset = storage.open_dataset(path, split, decode_images=False, allow_missing=True)
    return summaries.summarise(dataset, **options)


def found(summary):
    """{kind: [(episode, text)]} of a summary's problems."""
    return {problem.kind: list(problem.examples) for problem in summary.problems}


def field(summary, path):
    return next(f for f in summary.numbers if f.path == path)


def check_moments(measured, rows):
    """A field's moments are NumPy's over its rows [N, d]."""
    rows = np.asarray(rows, np.float64).reshape(len(rows), -1)
    assert measured.moments.count == len(rows)
    for name in ("min", "max"):
        np.testing.assert_array_equal(getattr(measured.moments, name), getattr(rows, name)(0))
    for name in ("mean", "std"):
        wanted = getattr(rows, name)(0)
        np.testing.assert_allclose(getattr(measured.moments, name), wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(measured.constant, np.ptp(rows, axis=0) == 0)


def jerk_of(actions, hz):
    """Third differences of each dimension, squared norm, mean over steps, by episode."""
    out = []
    for a in actions:
        a = np.asarray(a, np.float64)
        third = a[3:] - 3 * a[2:-1] + 3 * a[1:-2] - a[:-3]
        out.append((third**2).sum(1).mean() * hz**6)
    return np.array(out)


def idle_of(actions):
    """Shares of steps that change nothing by 0.1 % of the range, and that change nothing at all."""
    rows = np.concatenate(actions).astype(np.float64)
    width = rows.max(0) - rows.min(0)
    steps = np.concatenate([np.abs(np.diff(a.astype(np.float64), axis=0)) for a in actions])
    return (steps <= 1e-3 * width).all(1).mean(), (steps == 0).all(1).mean()


def test_figures_of_a_small_folder(tmp_path):
    data = folders.episodes()
    data[1][1][10:15] = data[1][1][10]  # an idle stretch: steps 11 to 14 repeat
    data[2][1][5] = data[2][1][4] + 1e-4  # and one that is nearly idle
    stated = folders.statistics(data)
    summary = summarise(folders.write(tmp_path / "set", data, stated=stated))

    assert (summary.name, summary.format, summary.version) == ("set", "LeRobot", "v2.1")
    assert (summary.episodes, summary.steps, summary.hz) == (3, 85, 10)
    assert summary.hours == pytest.approx(85 / 10 / 3600)
    assert summary.lengths.tolist() == [20, 35, 30]
    check_moments(field(summary, "steps/observation/state"), np.concatenate([s for s, _ in data]))
    check_moments(field(summary, "steps/action"), np.concatenate([a for _, a in data]))
    assert field(summary, "steps/action").names == tuple(folders.NAMES)
    actions = [a for _, a in data]
    assert summary.motion.jerk == pytest.approx(jerk_of(actions, 10).mean())
    assert summary.motion.median_jerk == pytest.approx(np.median(jerk_of(actions, 10)))
    assert (summary.motion.idle, summary.motion.repeated) == idle_of(actions) == (5 / 82, 4 / 82)
    (texts,) = summary.texts
    assert texts.counts == {"task 0": 2, "task 1": 1} and not texts.more
    assert summary.problems == () and summary.others == ()


def test_planted_faults_are_listed(tmp_path):
    data = folders.episodes(lengths=(40, 40, 40, 40, 40))
    stated = folders.statistics(data)
    data[1][0][7:9, 1] = np.nan
    data[1][1][3, 2] = np.inf
    data[2][1][20, 0] = 500.0
    data[3][0][10:14] = data[3][0][9]
    path = folders.write(tmp_path / "set", data, stated=stated)
    table = tmp_path / "set/data/chunk-000/episode_000004.parquet"
    table.write_bytes(table.read_bytes()[:-50])
    (tmp_path / "set/data/chunk-000/episode_000000.parquet").unlink()
    summary = summarise(path)
    wrong = found(summary)

    assert [e for e, _ in wrong["unreadable"]] == [0, 4]
    assert "episode_000000.parquet does not exist" in wrong["unreadable"][0][1]
    assert "episode_000004.parquet cannot be read" in wrong["unreadable"][1][1]
    assert summary.problems[0].kind == "unreadable" and summary.problems[0].episodes == 2
    assert summary.episodes == 5 and summary.positions.tolist() == [1, 2, 3]
    assert wrong["not finite"] == [
        (1, "state [elbow] is NaN at step 7 (2 steps of 40)"),
        (1, "action [grip] is infinite at step 3 (1 step of 40)"),
    ]
    ((episode, text),) = wrong["outlier"]
    assert episode == 2 and text.startswith("action [shoulder] is 500 at step 20, the rest -")
    ((episode, text),) = wrong["repeated observations"]
    assert episode == 3 and "4 of 40 steps" in text and "steps 10 to 13" in text
    # With episodes missing, what is stated of all of them is no doubt.
    assert "stated statistics" not in wrong
    # The rows that are finite are measured.
    state = np.concatenate([s for s, _ in data[1:4]])
    check_moments(field(summary, "steps/observation/state"), state[np.isfinite(state).all(1)])


def test_an_outlier_makes_no_step_idle(tmp_path):
    data = folders.episodes(lengths=(60, 60))
    before = summarise(folders.write(tmp_path / "a", data)).motion.idle
    data[0][1][30, 0] = 1e5
    after = summarise(folders.write(tmp_path / "b", data)).motion.idle
    assert before == after == 0


def test_wrong_statistics_are_a_doubt(tmp_path):
    data = folders.episodes()
    stated = folders.statistics(data)
    right = summarise(folders.write(tmp_path / "right", data, stated=stated))
    assert "stated statistics" not in found(right)
    stated["action"]["max"][1] += 0.5
    stated["action"]["std"][0] *= 1.2
    stated["observation.state"]["mean"] = [0.0]
    path = folders.write(tmp_path / "wrong", data, stated=stated)
    action, state = sorted(text for _, text in found(summarise(path))["stated statistics"])
    highest = np.concatenate([a for _, a in data])[:, 1].max()
    assert state == "state has 3 numbers, mean is stated of 1"
    assert action.startswith("action [elbow]: max is stated as")
    assert f"measured {highest:.6g} (and 1 other numbers differ)" in action
    # Of a part of the episodes, nothing is stated.
    assert "stated statistics" not in found(summarise(path, "train[:2]"))


def test_unreadable_statistics_are_a_doubt(tmp_path):
    path = folders.write(tmp_path / "set", folders.episodes(), stated={"action": 5})
    ((_, text),) = found(summarise(path))["stated statistics"]
    assert "cannot be read" in text


def test_instructions_that_are_empty(tmp_path):
    path = folders.write(
        tmp_path / "set", folders.episodes(), task=lambda i: " " if i == 1 else "go"
    )
    assert found(summarise(path))["empty instruction"] == [(1, "language_instruction is empty")]


def test_examples_are_bounded_and_episodes_counted(tmp_path):
    data = folders.episodes(lengths=(5,) * 30)
    for state, _ in data:
        state[2] = state[1]
    summary = summarise(folders.write(tmp_path / "set", data))
    (problem,) = summary.problems
    assert problem.episodes == 30 and len(problem.examples) == summaries.EXAMPLES


@pytest.mark.parametrize("name", ["good", "bad"])
def test_rlds(toy_data, name):
    dataset = storage.open_dataset(toy_data[name])
    episodes = [dataset[i]["steps"] for i in range(len(dataset))]
    summary = summaries.summarise(dataset, hz=4)
    assert summary.format.startswith("RLDS (") and summary.hz == 4
    assert summary.lengths.tolist() == [len(e["action"]) for e in episodes]
    check_moments(field(summary, "steps/action"), np.concatenate([e["action"] for e in episodes]))
    goals = np.concatenate([e["observation"]["goal"] for e in episodes])
    check_moments(field(summary, "steps/observation/goal"), goals)
    long = [e["action"] for e in episodes if len(e["action"]) > 3]
    assert summary.motion.jerk == pytest.approx(jerk_of(long, 4).mean(), rel=1e-6)
    assert summary.motion.idle == idle_of([e["action"] for e in episodes])[0]


def test_rlds_with_a_damaged_file(write_source):
    path = write_source("set", [8, 9, 10, 11], shards=2, file_format="tfrecord")
    dataset = storage.open_dataset(path)
    with open(dataset.shard_files[1], "r+b") as file:
        file.truncate(200)
    summary = summarise(path)
    first = dataset.shard_lengths[0]
    assert summary.positions.tolist() == list(range(first))
    assert [e for e, _ in found(summary)["unreadable"]] == list(range(first, 4))


def test_episodes_of_no_and_of_one_step(write_source):
    dataset = storage.open_dataset(write_source("set", [1, 0, 2, 6]), last_step="keep")
    summary = summaries.summarise(dataset)
    assert summary.lengths.tolist() == [1, 0, 2, 6] and summary.motion.repeated == 0
    assert field(summary, "steps/action").moments.count == 9
    assert [samples.read(dataset, summary, i).length for i in range(4)] == [1, 0, 2, 6]


def test_the_recorded_folder(recorded_data):
    """100 episodes of a humanoid; pyarrow and NumPy read the same by themselves."""
    folder = recorded_data / "lerobot_v21_g1"
    tables = [pq.read_table(p) for p in sorted(folder.glob("data/*/*.parquet"))]
    columns = collections.defaultdict(list)
    for table in tables:
        for name in ("observation.state", "action"):
            columns[name].append(np.stack(table[name].to_numpy()))
    summary = summarise(folder)
    assert (summary.episodes, summary.steps, summary.hz) == (100, 35_965, 30)
    check_moments(
        field(summary, "steps/observation/state"), np.concatenate(columns["observation.state"])
    )
    check_moments(field(summary, "steps/action"), np.concatenate(columns["action"]))
    assert summary.motion.sampled == 1
    assert summary.motion.jerk == pytest.approx(jerk_of(columns["action"], 30).mean())
    assert (summary.motion.idle, summary.motion.repeated) == idle_of(columns["action"])
    (camera,) = summary.cameras
    assert (camera.sizes, camera.codecs) == ({"640x480": 5}, {"av1": 5})
    assert camera.absent == 95 and camera.present == (10, 28, 29, 30, 31)
    # What its own files state agrees with what is measured.
    assert "stated statistics" not in found(summary)
    assert found(summary)["repeated observations"][0][0] == 98
