import jax
import numpy as np
import pytest

from ambient_jax.transforms.instructions import (
    InstructionTable,
    as_texts,
    cut,
    encode_bytes,
    is_empty,
    load_instructions,
    save_instructions,
)

TEXTS = ("pick up the cup", "open the drawer", "Öffne die Tür")


def table():
    return InstructionTable(TEXTS, np.arange(1, 13, dtype=np.float64).reshape(3, 4))


def test_bytes_by_hand():
    rows = encode_bytes(["ab", "ü", b"c"], 4)
    assert rows.dtype == np.uint8
    np.testing.assert_array_equal(rows, [[97, 98, 0, 0], [0xC3, 0xBC, 0, 0], [99, 0, 0, 0]])


def test_empty_instructions_are_rows_of_zeros_and_counted():
    rows = encode_bytes(["", "a", "  \n", b""], 3)
    np.testing.assert_array_equal(is_empty(rows), [True, False, True, True])
    assert jax.jit(lambda r: is_empty(r).sum())(rows) == 3
    assert is_empty(table().look_up(["", TEXTS[0], " "])).sum() == 2


def test_long_texts_are_cut_between_characters_only_where_asked_for():
    with pytest.raises(ValueError, match="'abü' has 4 bytes, over length = 3"):
        encode_bytes(["abü"], 3)
    rows = encode_bytes(["abü", "abcd", "a€", "abc"], 3, on_long="truncate")
    assert [bytes(row).rstrip(b"\0").decode() for row in rows] == ["ab", "abc", "a", "abc"]


@pytest.mark.parametrize(
    "text, length, kept",
    [
        ("pick up the cup", 11, "pick up the"),
        ("pick up the cup", 10, "pick up"),
        ("pick up the cup", 15, "pick up the cup"),
        ("pick  up", 5, "pick"),
        ("  pick up", 5, "  pic"),
        ("pick\nup it", 6, "pick"),
        ("öffne dä", 9, "öffne"),
        ("äöü", 5, "äö"),
    ],
)
def test_long_texts_lose_whole_words(text, length, kept):
    assert cut(text.encode(), length) == kept.encode()
    assert bytes(encode_bytes([text], length, "truncate")[0]).rstrip(b"\0") == kept.encode()


def test_one_text_for_all_robots_and_arrays_of_texts():
    texts = ["open", "shut"]
    assert as_texts("open", 4) == ["open"] * 4  # as many letters as robots
    assert as_texts(b"open", 4) == [b"open"] * 4
    for given in (texts, tuple(texts), np.array(texts), np.array(texts, object)):
        assert as_texts(given, 2) == texts
    assert as_texts(np.array([t.encode() for t in texts]), 2) == [b"open", b"shut"]
    assert as_texts(np.str_("open"), 2) == as_texts(np.array("open"), 2) == ["open"] * 2


@pytest.mark.parametrize(
    "texts, keywords, message",
    [
        ("pick", {}, "single text 'pick'; expected a sequence"),
        (["a\0b"], {}, "holds a zero byte"),
        ([3], {}, "Instruction 3 is int"),
        (["a"], {"length": 0}, "encode_bytes length is 0"),
        (["a"], {"on_long": "trunkate"}, "did you mean 'truncate'"),
    ],
)
def test_bad_texts_are_named(texts, keywords, message):
    with pytest.raises(ValueError, match=message):
        encode_bytes(texts, **{"length": 8, **keywords})


def test_a_table_goes_to_disk_and_back(tmp_path):
    save_instructions(tmp_path / "t.npz", table())
    read = load_instructions(tmp_path / "t.npz")
    assert read.text == TEXTS and read.embedding.dtype == np.float32
    found = read.look_up([TEXTS[2], "", TEXTS[0].encode()])
    np.testing.assert_array_equal(found, [[9, 10, 11, 12], [0, 0, 0, 0], [1, 2, 3, 4]])


def test_texts_may_be_bytes(tmp_path):
    np.savez(tmp_path / "t.npz", text=np.array([t.encode() for t in TEXTS]), embedding=np.eye(3))
    assert load_instructions(tmp_path / "t.npz").text == TEXTS


def test_an_unknown_instruction_names_the_nearest():
    with pytest.raises(ValueError, match="'open the draw' is not among the 3.*'open the drawer'"):
        table().look_up(["open the draw"])
    with pytest.raises(ValueError, match="single text"):
        table().look_up(TEXTS[0])


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"text": np.array(["a"])}, "no array 'embedding'; it has .*'text'"),
        ({"texts": np.array(["a"]), "embedding": np.ones((1, 2))}, "'text'; did you mean 'texts'"),
        ({"text": np.array(["a"]), "embedding": np.ones((2, 2))}, r"\(2, 2\) for 1 texts"),
        ({"text": np.array(["a"]), "embedding": np.ones(1)}, r"shape \(1,\) for 1 texts"),
        ({"text": np.array([["a"]]), "embedding": np.ones((1, 2))}, r"'text' is .*\(1, 1\)"),
        ({"text": np.array([1]), "embedding": np.ones((1, 2))}, "'text' is int"),
        ({"text": np.array(["a"], object), "embedding": np.ones((1, 2))}, "not objects"),
        ({"text": np.array(["a"]), "embedding": np.ones((1, 2), int)}, "floating numbers"),
        ({"text": np.array(["a"]), "embedding": np.full((1, 2), np.nan)}, "'a' is not finite"),
        ({"text": np.array(["a"]), "embedding": np.zeros((1, 2))}, "'a' is not finite or is all"),
        ({"text": np.array([" "]), "embedding": np.ones((1, 2))}, "has an empty text"),
        ({"text": np.array(["a", "a"]), "embedding": np.ones((2, 2))}, "'a' more than once"),
    ],
)
def test_bad_files_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        load_instructions(tmp_path / "bad.npz")
    assert "bad.npz" in str(error.value)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="No instruction embeddings at .*nowhere.npz"):
        load_instructions(tmp_path / "nowhere.npz")
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("a,b")
    (tmp_path / "empty.npz").write_bytes(b"")
    save_instructions(tmp_path / "t.npz", table())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "t.npz").read_bytes()[:-30])
    np.savez_compressed(tmp_path / "p.npz", text=np.array(TEXTS), embedding=np.eye(3))
    packed = (tmp_path / "p.npz").read_bytes()
    at = packed.index(b"text.npy") + len("text.npy") + 20  # behind the entry's extra field
    (tmp_path / "packed.npz").write_bytes(packed[:at] + b"\xff" + packed[at + 1 :])
    for name in ("one.npy", "text.npz", "empty.npz", "cut.npz", "packed.npz"):
        with pytest.raises(ValueError, match=f"{name} is not an .npz file of plain arrays"):
            load_instructions(tmp_path / name)
