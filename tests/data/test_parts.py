"""Statistics by parts: their sum, and parts as files."""

import dataclasses
import json

import numpy as np
import pytest

from ambient_jax.data import parts, rlds
from ambient_jax.data.parts import LastActions, Part
from ambient_jax.data.rlds_source import RldsSource


def opened(path, **options):
    return RldsSource(rlds.open_dataset(path, **options), "demos", ("state",))


def through_json(part):
    stored = json.dumps(dataclasses.asdict(part), default=np.ndarray.tolist)
    return Part.from_dict(json.loads(stored))


def same(one, two):
    assert json.dumps(dataclasses.asdict(one), default=np.ndarray.tolist) == json.dumps(
        dataclasses.asdict(two), default=np.ndarray.tolist
    )


def test_a_part_is_a_file_unless_there_are_very_many(monkeypatch, write_source):
    source = opened(write_source("demos", [2] * 7, shards=7))
    assert parts.parts_of(source) == [range(i, i + 1) for i in range(7)]
    monkeypatch.setattr(parts, "MOST_PARTS", 3)
    few = parts.parts_of(source)
    assert len(few) == 3
    assert [file for files in few for file in files] == list(range(7))


def test_the_sum_of_parts_does_not_depend_on_who_measured_them(write_source):
    """Parts that were files in between, bit for bit; the numbers are those of all rows."""
    lengths = [3, 1, 6, 2, 4]
    source = opened(write_source("demos", lengths, shards=3))
    files = parts.parts_of(source)
    assert len(files) == 3
    whole = parts.join(source, (parts.measure(source, f) for f in files))
    same(whole, parts.join(source, [through_json(parts.measure(source, f)) for f in files]))
    assert whole.lengths.tolist() == lengths
    rows = np.array([(e, t) for e, n in enumerate(lengths) for t in range(n)], float)
    np.testing.assert_allclose(whole.fields["observation/state"].mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(whole.fields["observation/state"].std, rows.std(0), rtol=1e-12)


def test_fillers_are_doubted_over_all_parts(write_source):
    """Three files of episodes that all end with the same action, and one that does not."""

    def episode(number, last):
        where = np.stack([np.full(4, number), np.arange(4)], -1).astype(np.float32)
        where[-1] = last
        flags = {n: np.zeros(4, bool) for n in ("is_first", "is_last", "is_terminal")}
        rewards = {n: np.zeros(4, np.float32) for n in ("reward", "discount")}
        return {"steps": {"observation": {"state": where}, "action": where, **flags, **rewards}}

    for name, odd in (("all", 9.0), ("not_all", 8.0)):
        episodes = [episode(i, 9.0) for i in range(5)] + [episode(5, odd)]
        source = opened(write_source(name, episodes, shards=3), last_step="drop")
        found = parts.join(source, (parts.measure(source, f) for f in parts.parts_of(source)))
        if name == "all":
            text = found.problems["last_step"]["examples"][0][1]
            assert text.startswith("all 6 episodes end with the same action [9.0, 9.0]")
        else:
            assert not found.problems


def test_last_actions_in_any_grouping():
    rows = np.array([[1.0, 2, 3], [1, 5, 3], [1, 2, 3], [1, 2, 4]])
    one = [LastActions(1, row, np.ones(3, bool)) for row in rows]
    left = one[0].merge(one[1]).merge(one[2]).merge(one[3])
    right = one[0].merge(one[1]).merge(one[2].merge(one[3]))
    for found in (left, right):
        assert found.count == 4 and found.same.tolist() == [True, False, False]


def test_examples_of_problems_stop_at_twenty(write_source):
    source = opened(write_source("demos", [3] * 30, shards=5))
    flagged = {"steps": {"is_last": np.array([True, False, False])}}
    examine = lambda file: [  # noqa: E731
        (i, {"steps": source[i]["steps"] | flagged["steps"]}, [("last_step", f"told {i}")])
        for i in range(6 * file, 6 * file + 6)
    ]
    source.examine = examine
    found = parts.join(source, (parts.measure(source, f) for f in parts.parts_of(source)))
    row = found.problems["last_step"]
    assert row["episodes"] == 30 and row["skipped"] == 0
    assert row["examples"] == [[i, f"told {i}"] for i in range(20)]


def test_fields_of_other_widths_in_another_file(write_source):
    source = opened(write_source("demos", [3, 4], shards=2))
    two = parts.measure(source, range(1))
    source.transform = lambda episode: {
        "steps": episode["steps"] | {"action": np.zeros((4, 3), np.float32)}
    }
    three = parts.measure(source, range(1, 2))
    told = "source 'demos', episode 1: action has 3 numbers a step, the episodes before it 2"
    with pytest.raises(ValueError, match=told):
        parts.join(source, [two, three])


def test_a_part_whose_numbers_disagree_is_refused(write_source):
    source = opened(write_source("demos", [3, 4]))
    stored = dataclasses.asdict(parts.measure(source, range(1)))
    with pytest.raises(ValueError, match="its lengths do not agree with its moments"):
        Part.from_dict(stored | {"lengths": [3, 5]})
