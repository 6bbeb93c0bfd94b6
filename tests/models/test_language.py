import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.models.language import ByteEncoder, EmbeddingEncoder
from ambient_jax.transforms.instructions import InstructionTable, encode_bytes

SMALL = {"width": 8, "depth": 1, "heads": 2}
TEXTS = ("pick up the cup", "open the drawer", "Öffne die Tür")


def table():
    return InstructionTable(TEXTS, np.arange(1, 13, dtype=np.float64).reshape(3, 4))


def test_longer_padding_changes_nothing(fill):
    encoder = ByteEncoder(**SMALL)
    texts = ["pick up the cup", "a", ""]
    params = fill(encoder, encode_bytes(texts, 16))
    short = jax.jit(encoder.apply)(params, encode_bytes(texts, 16))
    assert short.shape == (3, 8) and short.dtype == jnp.float32
    for length in (17, 64):
        longer = jax.jit(encoder.apply)(params, encode_bytes(texts, length))
        np.testing.assert_allclose(longer, short, atol=2e-5)


def test_permuted_words_differ(fill):
    """Four blanks between the words, of which the convolution sees two: without positions both
    texts would be the same bag of what it sees."""
    encoder = ByteEncoder(**SMALL)
    texts = ["    ".join(text.split()) for text in ("put red on blue now", "put blue on red now")]
    rows = encode_bytes([*texts, texts[0]], 36)
    np.testing.assert_array_equal(np.sort(rows[0]), np.sort(rows[1]))
    y = jax.jit(encoder.apply)(fill(encoder, rows), rows)
    assert np.abs(y[0] - y[1]).max() > 0.01
    np.testing.assert_allclose(y[0], y[2], atol=1e-6)


def test_each_instruction_alone_is_as_in_the_batch(fill):
    encoder, rows = ByteEncoder(**SMALL), encode_bytes([*TEXTS, ""], 24)
    params = fill(encoder, rows)
    alone = jax.jit(jax.vmap(lambda row: encoder.apply(params, row[None])[0]))(rows)
    np.testing.assert_allclose(alone, jax.jit(encoder.apply)(params, rows), atol=1e-5)


def test_no_instruction_is_a_learned_vector_and_all_gradients_are_finite(fill):
    encoder, rows = ByteEncoder(**SMALL), encode_bytes(["", "ab"], 6)
    params = fill(encoder, rows)

    @jax.jit
    @jax.value_and_grad
    def run(params):
        return (encoder.apply(params, rows) ** 2).sum()

    _, grads = run(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    used = np.abs(grads["params"]["embedding"]).max(1) > 0
    np.testing.assert_array_equal(np.flatnonzero(used), [ord("a"), ord("b")])
    # The first row is that vector and nothing else; the second knows nothing of it.
    np.testing.assert_allclose(grads["params"]["none"], 2 * params["params"]["none"], rtol=1e-6)


def test_bfloat16_is_close_and_its_parameters_are_float32(fill):
    exact, half = ByteEncoder(**SMALL), ByteEncoder(**SMALL, dtype=jnp.bfloat16)
    rows = encode_bytes(TEXTS, 20)
    params = fill(half, rows)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    y, y_half = jax.jit(exact.apply)(params, rows), jax.jit(half.apply)(params, rows)
    assert y_half.dtype == jnp.float32
    np.testing.assert_allclose(y_half, y, atol=0.05)
    assert np.abs(y_half - y).max() > 0


@pytest.mark.parametrize(
    "row, message",
    [
        (np.zeros((2, 4), np.int32), r"int32 of shape \(2, 4\); expected uint8"),
        (np.zeros((2, 1, 4), np.uint8), r"uint8 of shape \(2, 1, 4\)"),
    ],
)
def test_bad_instructions_are_named(row, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(ByteEncoder(**SMALL).init, jax.random.key(0), row)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"width": 18, "heads": 4}, "width: 18 is not a multiple of heads = 4"),
        ({"kernel_size": 4}, "kernel_size is 4; expected an odd"),
        ({"depth": 0}, "ByteEncoder depth is 0"),
    ],
)
def test_bad_sizes_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        ByteEncoder(**fields).check_sizes()


def test_embeddings_of_any_scale_are_the_same_to_the_encoder(fill):
    encoder, x = EmbeddingEncoder(8), np.array([[0.1, -0.2, 0.4], [0, 0, 0]], np.float32)
    params = fill(encoder, x)
    y = jax.jit(encoder.apply)(params, x)
    for scale in (1e-12, 1e6):
        np.testing.assert_allclose(encoder.apply(params, scale * x), y, atol=1e-4)
    np.testing.assert_array_equal(y[1], params["params"]["none"])
    inner = params["params"]["out"]
    normal = (x[0] - x[0].mean()) / x[0].std()
    np.testing.assert_allclose(y[0], normal @ inner["kernel"] + inner["bias"], atol=1e-3)
    with pytest.raises(ValueError, match=r"uint8 of shape \(1, 3\); expected floating"):
        encoder.apply(params, np.zeros((1, 3), np.uint8))
