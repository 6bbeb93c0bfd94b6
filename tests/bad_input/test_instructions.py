"""Instructions that are missing, of another type or number, too long, or without an embedding."""

import numpy as np

from ambient_jax.open_x.common_form import CommonForm
from ambient_jax.transforms import instructions, steps
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer

TABLE = instructions.InstructionTable(("open the drawer",), np.ones((1, 4), np.float32))
STATE = np.zeros((4, 1, 2), np.float32)


def chain_of_policy(bench, embeddings=False, **fields):
    if embeddings:
        instructions.save_instructions(bench.path / "texts.npz", TABLE)
        fields["embeddings"] = str(bench.path / "texts.npz")
    common = CommonForm(**{"instruction_bytes": 16, **fields})
    ones = {"action": np.ones(7), "observation/state": np.ones(2)}
    return Chain(Normalizer("none", {n: 0 * v for n, v in ones.items()}, ones), common.steps)


def told(*given, **fields):
    """Tells the policy of four robots an instruction, or nothing."""

    def act(bench):
        observation = {"instruction": given[0]} if given else {}
        return chain_of_policy(bench, **fields).check({"state": STATE, **observation}, (1,))

    return act


CASES = {
    "no instruction": (told(), "'instruction' is missing, .*give 4 texts, one for each row, ''"),
    "None for an instruction": (told(None), "'instruction' is missing"),
    "too few texts": (told(["open"] * 3), "instruction has 3 texts, expected 4 texts"),
    "too many texts": (told(("open",) * 5), "instruction has 5 texts, expected 4 texts"),
    "too few texts in an array": (told(np.array(["open"])), "instruction has 1 texts, expected 4"),
    "a number for an instruction": (told(7), "instruction is int 7, expected 4 texts"),
    "a dict for an instruction": (told({"text": "open"}), "instruction is dict .*expected 4 texts"),
    "a None among texts": (told(["open", None, "shut", ""]), "of row 1 is NoneType None"),
    "a number among texts": (told(["open", "shut", 3, ""]), "instruction of row 2 is int 3"),
    "a list among texts": (told([["open"], "", "", ""]), r"of row 0 is list \['open'\]"),
    "a None in an array": (told(np.array(["a", "b", "c", None], object)), "of row 3 is NoneType"),
    "texts with a history": (told(np.array([["open"]] * 4)), r"of row 0 is list \['open'\]"),
    "bytes of another length": (
        told(np.zeros((4, 9), np.uint8)),
        r"'instruction' has shape \(4, 9\) and type uint8, expected \(4, 16\) uint8",
    ),
    "bytes of another batch": (told(np.zeros((3, 16), np.uint8)), r"expected \(4, 16\) uint8"),
    "embeddings for bytes": (
        told(np.zeros((4, 16), np.float32)),
        r"float32, expected \(4, 16\)",
    ),
    "bytes for embeddings": (
        told(np.zeros((4, 4), np.uint8), embeddings=True),
        r"type uint8, expected \(4, 4\) float32",
    ),
    "a text without an embedding": (
        told("open the draw", embeddings=True),
        "'open the draw' is not among the 1 .*did you mean 'open the drawer'",
    ),
    "a text that is no UTF-8": (told(b"\xff\xfe", embeddings=True), "is no UTF-8"),
    "a number to encode": (lambda b: steps.Text(8).encode([3]), "row 0 is int 3"),
    "a number to look up": (lambda b: TABLE.look_up([3]), "Instruction int 3 is no text"),
    "a text to encode that is too long": (
        lambda b: instructions.encode_bytes(["open the drawer"], 8),
        "'open the drawer' has 15 bytes, over length = 8",
    ),
    "a length in fractions": (
        lambda b: instructions.encode_bytes(["open"], 8.0),
        "length is 8.0; expected an integer >= 1",
    ),
    "a list of texts that is one": (
        lambda b: instructions.encode_bytes("open", 8),
        "single text 'open'; expected a sequence",
    ),
}
STRICT = {"on_problem": {"instruction": "raise"}}
WARNED = {
    "no text where training had one in every step": (
        told(["open", "", "shut", " "], **STRICT),
        "a row has no instruction .''.*all steps of the training had one",
    ),
    "a text that is cut": (
        told("put the cup on the plate"),
        "has 24 bytes, over the training's instruction_bytes 16: the policy sees b'put the cup on'",
    ),
}


def test_one_text_is_told_to_all_robots(bench):
    """Four letters for four robots are one text, not one letter each."""
    for given in ("open", b"open", np.array("open"), ["open"] * 4, np.array(["open"] * 4)):
        found = told(given)(bench)["instruction"]
        np.testing.assert_array_equal(found, [list(b"open".ljust(16, b"\0"))] * 4)
    found = told(["open", "", "shut", ""])(bench)["instruction"]
    assert instructions.is_empty(found).tolist() == [False, True, False, True]
    whole = chain_of_policy(bench, **STRICT).encoders()["instruction"]("open")
    np.testing.assert_array_equal(told(np.repeat(whole, 4, 0))(bench)["instruction"][2], whole[0])


def test_warnings_of_texts_end_and_what_is_remembered_of_them_too(monkeypatch):
    """The texts that a server is asked come from outside, and never end."""
    text, told = steps.Text(16, empty=False), []
    monkeypatch.setattr(steps.logging, "warning", lambda line, *given: told.append(line % given))
    for number in range(300):
        for _ in range(2):
            text.check({"instruction": f"put cup {number} on the plate"}, (1, 1))
        text.check({"instruction": f"open {number}"}, (1, 1))
    assert len({*told}) == len(told) == len(text._warned) == 100
    assert "put cup 99 on" in told[99] and "no more" in told[99] and "no more" not in told[98]
