import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ambient_jax.models.denoiser import Denoiser
from ambient_jax.models.language import ByteEncoder
from ambient_jax.models.multimodal import MultimodalEncoder
from ambient_jax.models.observation import ObservationEncoder
from ambient_jax.models.transformer import TransformerDenoiser
from ambient_jax.models.unet import UNet1D
from ambient_jax.models.vision import ImageEncoder
from ambient_jax.transforms.instructions import InstructionTable, encode_bytes

VISION = {"keypoints": 2, "widths": (8,), "blocks": 1, "group_size": 8}
LANGUAGE = {"width": 8, "depth": 1, "heads": 2}
SMALL = {"width": 12, "depth": 1, "frequencies": 1, "vision": VISION, "language": LANGUAGE}


def observation(batch=3):
    rng = np.random.default_rng(0)
    texts = ["open the drawer", "", "pick up the cup"]
    return {
        "state": rng.uniform(-1, 1, (batch, 2, 3)).astype(np.float32),
        "gripper": rng.uniform(-1, 1, (batch, 1, 1)).astype(np.float32),
        "image_primary": rng.integers(0, 256, (batch, 2, 12, 12, 3), dtype=np.uint8),
        "image_wrist": rng.integers(0, 256, (batch, 1, 10, 10, 3), dtype=np.uint8),
        "image_wrist_mask": np.arange(batch) != 1,
        "instruction": encode_bytes([texts[i % 3] for i in range(batch)], 16),
    }


def test_parts_go_side_by_side_in_the_order_of_names(fill):
    encoder = MultimodalEncoder(**{**SMALL, "width": 0})
    entries = observation()
    variables = fill(encoder, entries)
    params = variables["params"]
    assert set(params) == {"image_primary", "image_wrist", "instruction_bytes"}

    def part(module, name, *args):
        return jax.jit(module.apply)({"params": params[name]}, *args)

    camera = ImageEncoder(**VISION)
    state = {name: entries[name] for name in ("state", "gripper")}
    primary = part(camera, "image_primary", entries["image_primary"])
    mask = entries["image_wrist_mask"]
    wrist = part(camera, "image_wrist", entries["image_wrist"], mask)
    expected = [
        ObservationEncoder(frequencies=1, width=0).apply({}, state),
        *(primary.reshape(3, -1), np.ones((3, 2)), wrist.reshape(3, -1), mask[:, None]),
        part(ByteEncoder(**LANGUAGE), "instruction_bytes", entries["instruction"]),
    ]
    y = jax.jit(encoder.apply)(variables, entries)
    np.testing.assert_allclose(y, np.concatenate(expected, axis=1), atol=1e-5)
    turned = dict(reversed(entries.items()))
    np.testing.assert_array_equal(jax.jit(encoder.apply)(variables, turned), y)


def test_state_alone_is_what_the_observation_encoder_does(fill):
    entries = {"state": observation()["state"]}
    encoder = MultimodalEncoder(width=12, depth=1)
    params = fill(encoder, entries)
    expected = ObservationEncoder(width=12, depth=1).apply(params, entries)
    np.testing.assert_allclose(encoder.apply(params, entries), expected, atol=1e-6)


def test_each_sample_alone_is_as_in_the_batch(fill):
    encoder, entries = MultimodalEncoder(**SMALL), observation()
    params = fill(encoder, entries)

    def one(entry):
        return encoder.apply(params, jax.tree.map(lambda a: a[None], entry))[0]

    together = jax.jit(encoder.apply)(params, entries)
    assert together.shape == (3, 12) and together.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(entries), together, atol=1e-5)


def test_a_missing_camera_changes_nothing_but_is_told(fill):
    encoder, entries = MultimodalEncoder(**SMALL), observation()
    entries["image_wrist"] = entries["image_wrist"].astype(np.float32) / 255
    params = fill(encoder, entries)

    @jax.jit
    def run(entries):
        def loss(images):
            y = encoder.apply(params, {**entries, "image_wrist": images})
            return (y**2).sum(), y

        return jax.value_and_grad(loss, has_aux=True)(entries["image_wrist"])

    dirty = entries["image_wrist"].copy()
    dirty[1] = np.nan
    clean = run(entries)
    jax.tree.map(np.testing.assert_array_equal, run({**entries, "image_wrist": dirty}), clean)
    (_, y), gradient = clean
    np.testing.assert_array_equal(gradient[1], 0)
    assert np.abs(gradient[0]).max() > 0
    # Not the same as a camera whose keypoints all lie in the middle.
    params["params"]["image_wrist"] = jax.tree.map(jnp.zeros_like, params["params"]["image_wrist"])
    (_, y), _ = run(entries)
    (_, there), _ = run({**entries, "image_wrist_mask": np.ones(3, bool)})
    assert np.abs(y[1] - there[1]).max() > 1e-3
    np.testing.assert_array_equal(y[::2], there[::2])


def test_cameras_can_share_their_trunk(fill):
    entries = {name: observation()[name] for name in ("image_primary", "image_wrist")}
    encoder = MultimodalEncoder(**{**SMALL, "width": 0}, share_cameras=True)
    params = fill(encoder, entries)["params"]
    assert set(params) == {"resnet", "image_primary", "image_wrist"}
    assert set(params["image_primary"]) == {"keypoints"}
    params["image_wrist"] = params["image_primary"]
    same = {"image_primary": entries["image_primary"], "image_wrist": entries["image_primary"]}
    y = jax.jit(encoder.apply)({"params": params}, same)
    np.testing.assert_allclose(y[:, :10], y[:, 10:], atol=1e-6)


def test_embeddings_take_the_place_of_bytes(fill):
    table = InstructionTable(("open", "close"), np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]]))
    entries = {"instruction": table.look_up(["close", "open", ""])}
    encoder = MultimodalEncoder(**SMALL)
    params = fill(encoder, entries)
    assert params["params"]["instruction_embedding"]["out"]["kernel"].shape == (3, 8)
    y = jax.jit(encoder.apply)(params, entries)
    assert np.abs(y[:, None] - y)[np.triu_indices(3, 1)].max(-1).min() > 1e-3
    with pytest.raises(ValueError, match=r"floating \[B, E\].*has one of dtype uint8"):
        encoder.apply(params, {"instruction": encode_bytes(["open"], 4)})


def test_bfloat16_is_close_and_its_parameters_are_float32(fill):
    exact, half = MultimodalEncoder(**SMALL), MultimodalEncoder(**SMALL, dtype=jnp.bfloat16)
    entries = observation()
    params = fill(half, entries)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    y, y_half = jax.jit(exact.apply)(params, entries), jax.jit(half.apply)(params, entries)
    assert y_half.dtype == jnp.float32
    np.testing.assert_allclose(y_half, y, atol=0.05)
    assert np.abs(y_half - y).max() > 0


@pytest.mark.parametrize(
    "backbone",
    [UNet1D((8,), groups=4, blocks=1, embed_dim=8), TransformerDenoiser(16, 1, 2)],
    ids=["unet", "transformer"],
)
def test_both_denoisers_take_the_condition(fill, backbone):
    denoiser, entries = Denoiser(backbone, MultimodalEncoder(**SMALL)), observation()
    args = np.ones((3, 4, 2), np.float32), np.full(3, 0.5, np.float32)
    params = fill(denoiser, *args, entries)

    @jax.jit
    def predict(entries):
        return denoiser.apply(params, *args, entries)

    y = predict(entries)
    assert y.shape == (3, 4, 2)
    for name in ("image_primary", "instruction", "state"):
        other = predict({**entries, name: entries[name][::-1]})
        assert np.abs(other[0] - y[0]).max() > 1e-5, name


@pytest.mark.slow
def test_training_uses_the_image_and_the_instruction(fill):
    """The action is u w: u = -+1 is the side of a bright square, w = -+1 the order of two words.

    At sigma = 1 the chunk is noise alone, so the best prediction of x0 is E[x0 | observation].
    From the image alone that is E[u w | u] = 0 with loss Var(u w) = 1, from the instruction alone
    the same, and so for any sum of the two: u w has correlation zero with both. On a set with every
    image under both instructions this holds exactly for anything computed from images alone, as
    ((f + 1)^2 + (f - 1)^2) / 2 = 1 + f^2 >= 1, and likewise for the instruction.
    """
    texts = encode_bytes(["put red on blue", "put blue on red"], 16)

    def draw(rng, count):
        """Every one of `count` images under both instructions: [2 count] rows."""
        side = rng.integers(0, 2, count)
        images = rng.integers(0, 60, (count, 1, 16, 16, 3), dtype=np.uint8)
        for image, right, top in zip(images, side, rng.integers(0, 13, count), strict=True):
            left = rng.integers(0, 5) + 8 * right
            image[0, top : top + 4, left : left + 4] = 250
        word = np.repeat([0, 1], count)
        action = ((2 * np.tile(side, 2) - 1) * (2 * word - 1)).astype(np.float32)
        entries = {
            "image_primary": np.tile(images, (2, 1, 1, 1, 1)),
            "image_primary_mask": np.ones(2 * count, bool),
            "instruction": texts[word],
        }
        noise = np.tile(rng.normal(size=(count, 1, 1)).astype(np.float32), (2, 1, 1))
        return entries, noise, action[:, None, None]

    def loss(params, entries, x_t, x0):
        x0_hat = denoiser.apply(params, x_t, np.ones(len(x_t), np.float32), entries)
        return ((x0_hat - x0) ** 2).mean()

    @jax.jit
    def step(params, state, batch):
        value, gradient = jax.value_and_grad(loss)(params, *batch)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    denoiser = Denoiser(TransformerDenoiser(16, 1, 2), MultimodalEncoder(**{**SMALL, "width": 32}))
    optimiser = optax.adam(3e-3)
    rng = np.random.default_rng(0)
    entries, x_t, x0 = draw(rng, 16)
    params = fill(denoiser, x_t, np.ones(len(x_t), np.float32), entries)
    state = optimiser.init(params)
    for _ in range(400):
        params, state, value = step(params, state, draw(rng, 16))
    measure = jax.jit(loss)
    entries, x_t, x0 = draw(np.random.default_rng(1), 64)
    assert measure(params, entries, x_t, x0) < 0.25
    blind = {**entries, "image_primary_mask": np.zeros(len(x_t), bool)}
    deaf = {**entries, "instruction": np.zeros_like(entries["instruction"])}
    # The noise is the same under both words; under both sides it is only where it is zero.
    assert measure(params, blind, np.zeros_like(x_t), x0) >= 1 - 1e-6
    assert measure(params, deaf, x_t, x0) >= 1 - 1e-6


@pytest.mark.parametrize(
    "change, message",
    [
        (None, "observation is empty"),
        ({"image_wrist": None}, "'image_wrist_mask' has no images 'image_wrist'"),
        ({"image_primary": np.zeros((3, 12, 12, 3), np.uint8)}, r"'image_primary' has shape \(3,"),
        ({"image_wrist_mask": np.ones((3, 2))}, r"mask of 'image_wrist' has shape \(3, 2\)"),
        ({"state": np.zeros((2, 1, 3))}, "'state' has batch size 2, but 'gripper' has 3"),
        ({"state": np.zeros((3, 3))}, r"'state' has shape \(3, 3\); expected \[B, T, d\]"),
        ({"state": 1.0}, "'state' is a scalar"),
        ({"instruction": np.zeros((3, 4), np.int32)}, "instruction is int32.*encode_bytes"),
    ],
)
def test_bad_observations_are_named(change, message):
    entries = {} if change is None else {**observation(), **change}
    entries = {name: value for name, value in entries.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(MultimodalEncoder(**SMALL).init, jax.random.key(0), entries)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"image_wrist": None, "image_wrist_mask": None},
            "has no 'image_wrist', which the parameters were made for.*'image_wrist_mask' = False",
        ),
        ({"image_top": observation()["image_wrist"]}, "made for .*, not for 'image_top'"),
        ({"instruction": None}, r"made for an 'instruction' uint8 \[B, L\].* has none"),
        ({"instruction": np.ones((3, 4), np.float32)}, r"uint8 \[B, L\].*one of dtype float32"),
    ],
)
def test_observations_unlike_the_parameters_are_named(change, message):
    encoder = MultimodalEncoder(**SMALL)
    params = jax.eval_shape(encoder.init, jax.random.key(0), observation())
    entries = {**observation(), **change}
    entries = {name: value for name, value in entries.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(encoder.apply, params, entries)


def test_an_instruction_that_the_parameters_know_nothing_of_is_named():
    encoder, entries = MultimodalEncoder(**SMALL), observation()
    words = entries.pop("instruction")
    params = jax.eval_shape(encoder.init, jax.random.key(0), entries)
    with pytest.raises(ValueError, match="made without an 'instruction'"):
        jax.eval_shape(encoder.apply, params, {**entries, "instruction": words})


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"vision": {"width": (8,)}}, "vision has an unknown field 'width'.*'widths'"),
        ({"vision": {"dtype": "bfloat16"}}, "vision has an unknown field 'dtype'"),
        ({"vision": {"keypoints": 0}}, "ImageEncoder keypoints is 0"),
        ({"language": {"head": 2}}, "language has an unknown field 'head'.*'heads'"),
        ({"language": {"width": 6}}, "ByteEncoder width: 6"),
        ({"width": -1}, "MultimodalEncoder width is -1"),
    ],
)
def test_bad_sizes_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        MultimodalEncoder(**fields).check_sizes()
