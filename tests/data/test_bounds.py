"""The bounds file: round trips, joins by id, and every way in which a file can be wrong."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ambient_jax
from ambient_jax.data import bounds, rlds

HOW = {"tau": 0.05, "rule": "isotonic", "granularity": "random", "levels": [0.1, 0.5]}


def rrt(**change):
    """Two episodes of three steps and one of one."""
    made = {
        "name": "rrt",
        "fingerprint": "abc",
        "episode": [5, 5, 5, 2, 2, 2, 9],
        "step": [0, 1, 2, 0, 1, 2, 0],
        "sigma_min": [0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 0.0],
        "sigma_max": [0.0, 0.2, 0.1, 0.0, 0.0, 0.0, 1.0],
        "method": "classifier",
        "how": HOW,
    } | change
    return bounds.for_source(made.pop("name"), made.pop("fingerprint"), **made)


def gcs():
    return bounds.for_source("gcs", "def", [5, 2], [0, 0], 0.0, method="classifier", how=HOW)


def changed(made, **rows):
    """The same bounds with some cells set, {column: {row: value}}."""
    columns = {name: getattr(made, name).copy() for name in rows}
    for name, cells in rows.items():
        for row, value in cells.items():
            columns[name][row] = value
    return dataclasses.replace(made, **columns)


@pytest.fixture
def path(tmp_path):
    return bounds.write(
        tmp_path / "made" / "by" / "test.parquet", bounds.concatenate([gcs(), rrt()])
    )


def rewrite(path, change):
    """Edits the table of a file behind the module's back."""
    pq.write_table(change(pq.read_table(path)), path)


def with_metadata(path, change):
    def edit(table):
        stored = json.loads(table.schema.metadata[bounds.METADATA_KEY])
        change(stored)
        return table.replace_schema_metadata({bounds.METADATA_KEY: json.dumps(stored)})

    rewrite(path, edit)


def test_round_trip(path):
    written, found = bounds.concatenate([gcs(), rrt()]), bounds.read(path)
    for field in dataclasses.fields(written):
        a, b = getattr(written, field.name), getattr(found, field.name)
        np.testing.assert_array_equal(a, b)
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None)
    assert found.names == ("gcs", "rrt") and found.version == ambient_jax.__version__
    assert found.how == HOW and len(found) == 9
    assert [p.name for p in path.parent.iterdir()] == ["test.parquet"]


def test_columns_are_readable_by_anyone(path):
    table = pq.read_table(path)
    assert {f.name: str(f.type) for f in table.schema} == {
        "source": "dictionary<values=string, indices=int32, ordered=0>",
        "episode": "int64",
        "step": "int32",
        "sigma_min": "float",
        "sigma_max": "float",
    }
    assert table["source"].to_pylist() == ["gcs"] * 2 + ["rrt"] * 7
    stored = json.loads(table.schema.metadata[bounds.METADATA_KEY])
    assert stored["sources"]["rrt"] == {"fingerprint": "abc", "rows": 7}


def test_how_may_hold_numpy_and_a_source_may_be_empty(tmp_path):
    how = {"levels": np.array([0.25, 0.5]), "size": np.int64(3)}
    empty = rrt(episode=[], step=[], sigma_min=[], sigma_max=[], how=how)
    found = bounds.read(bounds.write(tmp_path / "b", empty))
    assert found.how == {"levels": [0.25, 0.5], "size": 3} and found.names == ("rrt",)
    low, high = bounds.lookup(found, "rrt", np.zeros(0, int), np.zeros(0, int))
    assert low.shape == high.shape == (0,)
    with pytest.raises(ValueError, match="1 of 1 steps of source 'rrt' have no bounds"):
        bounds.lookup(found, "rrt", [0], [0])


def test_files_written_in_pieces_read_alike(path):
    """Row groups, plain strings and other integer types, as other tools write them."""
    want = bounds.read(path)

    def edit(table):
        names = pa.array(table["source"].to_pylist())
        return table.set_column(0, "source", names).set_column(
            2, "step", table["step"].cast(pa.int64())
        )

    rewrite(path, edit)
    pq.write_table(pq.read_table(path), path, row_group_size=2)
    found = bounds.read(path)
    for name in ("source", "episode", "step", "sigma_min", "sigma_max"):
        np.testing.assert_array_equal(getattr(found, name), getattr(want, name))
        assert getattr(found, name).dtype == getattr(want, name).dtype


def test_sigma_max_left_out_means_clean_or_ambient():
    made = rrt(sigma_max=None)
    np.testing.assert_array_equal(made.sigma_max, [0, 0, 0, 0, 0, 0, 1])


def test_lookup_joins_by_id(path):
    found = bounds.read(path)
    low, high = bounds.lookup(found, "rrt", [2, 9, 5, 2], [1, 0, 2, 1], fingerprint="abc")
    assert low.dtype == high.dtype == np.float32
    np.testing.assert_array_equal(low, np.float32([0.5, 0.0, 0.3, 0.5]))
    np.testing.assert_array_equal(high, np.float32([0.0, 1.0, 0.1, 0.0]))
    np.testing.assert_array_equal(bounds.lookup(found, "gcs", [2, 5], [0, 0]), [[0, 0], [1, 1]])


def test_lookup_of_many_rows_is_a_dictionary():
    rng = np.random.default_rng(0)
    ids = np.unique(rng.integers(-(2**62), 2**62, 2000))
    assert ids.size == 2000
    episode, step = np.repeat(ids, 60), np.tile(np.arange(60), 2000)
    order = rng.permutation(120_000)[:100_000]
    episode, step = episode[order], step[order]
    low = rng.random(100_000).astype(np.float32)
    made = bounds.concatenate(
        [gcs(), rrt(episode=episode, step=step, sigma_min=low, sigma_max=low / 2)]
    )
    table = dict(zip(zip(episode, step, strict=True), low, strict=True))
    ask = rng.integers(0, 100_000, 100_000)
    found, high = bounds.lookup(made, "rrt", episode[ask], step[ask])
    want = [table[key] for key in zip(episode[ask], step[ask], strict=True)]
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(high, found / 2)


def test_bounds_of_a_real_dataset_join_and_know_its_version(toy_data, tmp_path):
    data = rlds.open_dataset(toy_data["bad"])
    lengths = [len(data[i]["steps"]["action"]) for i in range(len(data))]
    episode = np.repeat(data.episode_ids, lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    made = bounds.for_source(
        "bad", data.fingerprint, episode, step, episode / 100, method="test", how={}
    )
    found = bounds.read(bounds.write(tmp_path / "bounds.parquet", made))
    half = rlds.open_dataset(toy_data["bad"], "train[50%:]")
    ids = half.episode_ids
    low, _ = bounds.lookup(found, "bad", ids, np.zeros(len(ids), int), data.fingerprint)
    np.testing.assert_allclose(low, ids / 100, rtol=1e-6)
    other = rlds.open_dataset(toy_data["good"])
    with pytest.raises(ValueError, match=f"'bad' were made on other data .*{other.fingerprint}"):
        bounds.lookup(found, "bad", ids, np.zeros(len(ids), int), other.fingerprint)


def test_lookup_refuses_what_is_not_in_the_file(path):
    found = bounds.read(path)
    with pytest.raises(ValueError, match="no bounds of source 'rtt', only of gcs, rrt; did you"):
        bounds.lookup(found, "rtt", [5], [0])
    with pytest.raises(ValueError, match=r"other data \(fingerprint abc\) than these \(xyz\): ann"):
        bounds.lookup(found, "rrt", [5], [0], fingerprint="xyz")
    # In turn: no such episode (first, between, last), no such step (negative, too large).
    for episode, step in [(0, 0), (4, 0), (99, 0), (5, -1), (5, 3), (9, 1), (2, 10**9)]:
        match = rf"2 of 3 steps of source 'rrt' .* first is episode {episode} step {step}:"
        with pytest.raises(ValueError, match=match):
            bounds.lookup(found, "rrt", [5, episode, episode], [0, step, step])
    with pytest.raises(ValueError, match=r"have shapes \(2,\) and \(1,\), expected \[M\] both"):
        bounds.lookup(found, "rrt", [5, 2], [0])
    with pytest.raises(ValueError, match="step is of type float64, expected integers"):
        bounds.lookup(found, "rrt", [5], [0.0])


BAD_ROWS = [
    (
        {"step": {1: 0, 2: 0}},
        r"2 rows repeat an id, the first is source 'rrt' episode 5 step 0 \(row 1\)",
    ),
    (
        {"sigma_min": {3: np.nan, 4: 2}},
        r"sigma_min of source 'rrt' episode 2 step 0 \(row 3\) is nan.*2 rows of 7 are bad",
    ),
    ({"sigma_min": {4: 1.5}}, r"sigma_min of source 'rrt' episode 2 step 1 \(row 4\) is 1.5"),
    ({"sigma_max": {4: -0.5}}, r"sigma_max of source 'rrt' episode 2 step 1 \(row 4\) is -0.5"),
    (
        {"sigma_max": {0: 0.4}},
        r"source 'rrt' episode 5 step 0 \(row 0\) has sigma_max 0.4 above sigma_min 0.1",
    ),
    ({"sigma_max": {6: 0.9}}, r"\(row 6\) has sigma_max 0.9 above sigma_min 0, which admits"),
]


@pytest.mark.parametrize("rows, message", BAD_ROWS)
def test_bad_rows_are_neither_used_nor_written(tmp_path, rows, message):
    bad = changed(rrt(), **rows)
    with pytest.raises(ValueError, match=message):
        bounds.lookup(bad, "rrt", [9], [0])
    with pytest.raises(ValueError, match=message):
        bounds.write(tmp_path / "sub" / "bounds.parquet", bad)
    assert not list(tmp_path.iterdir())


def test_bad_rows_of_another_source_do_not_matter():
    both = bounds.concatenate([gcs(), changed(rrt(), sigma_min={3: np.nan})])
    np.testing.assert_array_equal(bounds.lookup(both, "gcs", [5], [0]), [[0], [1]])


def test_a_failed_write_leaves_the_old_file(path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="how cannot be kept as JSON .*give numbers"):
        bounds.write(path, rrt(how={"classifier": object()}))
    with pytest.raises(ValueError, match="how cannot be kept as JSON"):
        bounds.write(path, rrt(how={"tau": float("nan")}))
    assert path.read_bytes() == before
    bounds.write(path, gcs())
    assert bounds.read(path).names == ("gcs",) and len(list(path.parent.iterdir())) == 1


def test_missing_files(path):
    with pytest.raises(
        FileNotFoundError, match="did you mean 'test.parquet'.*ambient_jax.annotate"
    ):
        bounds.read(path.with_name("tests.parquet"))
    with pytest.raises(FileNotFoundError, match="no bounds file .*make one with python -m amb"):
        bounds.read(path.parent / "nowhere" / "b.parquet")
    with pytest.raises(FileNotFoundError, match="is a directory: give the bounds file"):
        bounds.read(path.parent)


def test_files_that_are_no_bounds_files(path):
    other = path.with_name("other.parquet")
    other.write_text("source,episode,step\n")
    with pytest.raises(ValueError, match="other.parquet is no parquet file, or damaged"):
        bounds.read(other)
    other.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="other.parquet is no parquet file, or damaged"):
        bounds.read(other)
    pq.write_table(pa.table({"x": [1, 2]}), other)
    with pytest.raises(ValueError, match="is a parquet file but no bounds file"):
        bounds.read(other)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda m: m.update(format=2, version="9.1"),
            "has format 2, made by ambient_jax 9.1; this",
        ),
        (lambda m: m.update(format="new"), "metadata of its schema are damaged"),
        (lambda m: m.pop("format"), r"damaged \(KeyError\('format'\)\)"),
        (lambda m: m.pop("how"), r"damaged \(KeyError\('how'\)\)"),
        (lambda m: m["sources"]["rrt"].pop("rows"), r"damaged \(KeyError\('rows'\)\)"),
        (lambda m: m.update(sources=[1]), "metadata of its schema are damaged"),
        (lambda m: m["sources"]["rrt"].update(rows=8), "holds 7 rows of rrt, its metadata say 8"),
        (lambda m: m["sources"].pop("gcs"), "holds 2 rows of unknown sources"),
    ],
)
def test_metadata_that_do_not_fit(path, change, message):
    with_metadata(path, change)
    with pytest.raises(ValueError, match=message):
        bounds.read(path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.slice(0, 5), "holds 3 rows of rrt, its metadata say 7: it was edited"),
        (lambda t: t.drop_columns(["step"]), "has no column 'step'"),
        (
            lambda t: t.set_column(1, "episode", pa.array(["a"] * 9)),
            "column 'episode' is string, expected int64",
        ),
        (
            lambda t: t.set_column(3, "sigma_min", pa.array([None] * 9, pa.float32())),
            "column 'sigma_min' has 9 empty cells",
        ),
        (
            lambda t: t.set_column(0, "source", pa.array([None] * 9, pa.string())),
            "column 'source' has 9 empty cells",
        ),
    ],
)
def test_tables_that_do_not_fit(path, change, message):
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        bounds.read(path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": ""}, "name 0 is '', expected names"),
        ({"fingerprint": ""}, "source 'rrt' has no fingerprint"),
        ({"episode": [0.5] * 7}, "episode is of type float64, expected integers"),
        ({"step": [2**31] * 7}, "step holds 2147483648 to 2147483648, beyond int32"),
        ({"step": [0, 1]}, r"step has shape \(2,\), expected \[N\] as source has \(7,\)"),
        ({"sigma_min": [0.5, 0.5], "sigma_max": 0}, r"sigma_min has shape \(2,\)"),
        ({"episode": np.zeros((7, 1), int)}, r"source has shape \(7, 1\)"),
    ],
)
def test_columns_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        rrt(**change)


def test_sources_that_do_not_fit():
    with pytest.raises(ValueError, match="name 1 is 'rrt', expected names that differ"):
        bounds.concatenate([rrt(), rrt()])
    with pytest.raises(ValueError, match="rrt and of gcs were chosen with different methods"):
        bounds.concatenate([gcs(), rrt(how={})])
    with_arrays = [dict(HOW, levels=np.arange(3.0)) for _ in range(2)]
    parts = [rrt(how=with_arrays[0]), rrt(name="other", how=with_arrays[1])]
    assert bounds.concatenate(parts).names == ("rrt", "other")
    with pytest.raises(ValueError, match="no bounds to concatenate"):
        bounds.concatenate([])
    with pytest.raises(ValueError, match="source holds 3, expected 0 to 0, into names"):
        changed(rrt(), source={2: 3})
