"""Parts as files: what is missing, what failed, and what is made."""

import functools

import pytest

from ambient_jax.data import rlds
from ambient_jax.data.prepare import shards
from ambient_jax.data.prepare.shards import Pieces
from ambient_jax.data.rlds_source import RldsSource


@pytest.fixture
def pieces(write_source, tmp_path):
    """Sources "a" of three files and "b" of two."""

    def one(name, lengths):
        path = write_source(name, lengths, shards=len(lengths))
        source = RldsSource(rlds.open_dataset(path), name, ("state",))
        return Pieces.of(source, tmp_path / "parts" / name, ".txt")

    return {"a": one("a", [3, 4, 5]), "b": one("b", [3, 4])}


def make(pieces, task, broken=()):
    name, index = task

    def write(path):
        if task in broken:
            raise ValueError(f"{name} {index} is broken\nfor a reason")
        path.write_text("made")

    pieces[name].make(index, write)


def test_missing_parts_are_made(pieces):
    broken = [("a", 1), ("b", 0)]
    failures, made = shards.complete(functools.partial(make, pieces, broken=broken), pieces, 0)
    assert made == 3
    assert failures == {
        "a": [("source 'a', shard 1 of 3", "a 1 is broken")],
        "b": [("source 'b', shard 0 of 2", "b 0 is broken")],
    }
    assert pieces["a"].missing() == [1] and pieces["a"].ended() == {0, 1, 2}
    failures, made = shards.complete(functools.partial(make, pieces), pieces, 0)
    assert made == 2 and failures == {"a": [], "b": []}
    assert not [p for p in pieces["a"].folder.iterdir() if p.name.endswith(shards.FAILED)]
    assert shards.complete(lambda task: 1 / 0, pieces, 0) == ({"a": [], "b": []}, 0)


def test_what_the_engine_did_not_reach(pieces, monkeypatch):
    monkeypatch.setattr(shards.engine, "run", lambda *_: "RuntimeError: it broke")
    failures, made = shards.complete(functools.partial(make, pieces), pieces, 2)
    assert made == 0 and len(failures["a"]) == 3
    what, why = failures["b"][1]
    assert what == "source 'b', shard 1 of 2"
    assert why == "it was not reached, the pipeline ended (RuntimeError: it broke)"


def test_the_bar_counts_what_has_ended(pieces, monkeypatch):
    counted = []

    def run(make_one, tasks, count, processes, options):
        for task in tasks:
            make_one(task)
            counted.append(count())
        return ""

    pieces["a"].folder.mkdir(parents=True, exist_ok=True)
    make(pieces, ("a", 0))
    monkeypatch.setattr(shards.engine, "run", run)
    shards.complete(functools.partial(make, pieces, broken=[("b", 1)]), pieces, 2)
    assert counted == [1, 2, 3, 4]  # what was there before does not count
