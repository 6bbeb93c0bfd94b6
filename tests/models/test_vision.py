import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.models.vision import BasicBlock, ImageEncoder, ResNet, spatial_softmax

SMALL = {"keypoints": 3, "widths": (8, 16), "blocks": 1, "group_size": 8}
TINY = {**SMALL, "widths": (8,)}


def images(batch=3, history=2, side=32, seed=0):
    shape = (batch, history, side, side, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_resnet_18_has_the_textbook_number_of_parameters():
    """torchvision's resnet18 has 11 689 512; without its classifier (512 + 1) * 1000 that is
    11 176 512, of which a BatchNorm's scale and shift per channel are a GroupNorm's too."""
    shapes = jax.eval_shape(ResNet().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    found = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert found == 11_689_512 - 513 * 1000

    norm, total = 2, 3 * 64 * 7**2 + 2 * 64  # the stem
    below = 64
    for width in (64, 128, 256, 512):
        total += 9 * below * width + 3 * 9 * width**2 + 4 * norm * width
        total += below * width + norm * width if width != below else 0  # shortcut
        below = width
    assert found == total


def test_convolutions_start_with_the_variance_of_he():
    """Two over the fan-out, which is the kernel's area times the features."""
    block = BasicBlock(features=64, stride=2, group_size=16)
    params = jax.jit(block.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))["params"]
    for name, kernel in (("conv_0", 3), ("conv_1", 3), ("shortcut", 1)):
        leaf = params[name]["kernel"]
        assert leaf.shape[:2] == (kernel, kernel)
        np.testing.assert_allclose(leaf.var(), 2 / (kernel**2 * 64), rtol=0.15)


@pytest.mark.parametrize("side, expected", [(64, 2), (96, 3), (65, 3), (224, 7)])
def test_four_stages_bring_the_sides_down_32_times(side, expected):
    y = jax.eval_shape(
        lambda x: ResNet().init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, side, 64, 3))
    )
    assert y.shape == (2, expected, 2, 512)


def test_spatial_softmax_of_a_bump_is_where_it_is():
    """A cell at height a has weight e^a / (e^a + n - 1) against 1 / (e^a + n - 1) of the others,
    whose places sum to minus its own: (e^a - 1) / (e^a + n - 1) of its place."""
    h, w, height = 5, 4, 3.0
    places = [(0, 0), (2, 1), (4, 3)]
    bumps = np.zeros((1, h, w, len(places)), np.float32)
    for k, (i, j) in enumerate(places):
        bumps[0, i, j, k] = height
    coordinates = np.array([[2 * j / (w - 1) - 1, 2 * i / (h - 1) - 1] for i, j in places])
    share = (np.exp(height) - 1) / (np.exp(height) + h * w - 1)
    y = spatial_softmax(jnp.asarray(bumps))
    np.testing.assert_allclose(y[0], share * coordinates.ravel(), atol=1e-6)
    y = spatial_softmax(jnp.asarray(1e4 * bumps, jnp.bfloat16))
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y[0], coordinates.ravel(), atol=1e-6)


def test_shape_and_type_under_jit(fill):
    encoder, x = ImageEncoder(**SMALL), images()
    y = jax.jit(encoder.apply)(fill(encoder, x), x)
    assert y.shape == (3, 2, 6) and y.dtype == jnp.float32
    assert np.ptp(y, axis=(0, 1)).min() > 0  # it sees the images
    assert np.abs(y).max() <= 1


def test_uint8_and_floats_are_the_same_images(fill):
    encoder, x = ImageEncoder(**TINY), images(side=12)
    params = fill(encoder, x)
    apply = jax.jit(encoder.apply)
    y = apply(params, x.astype(np.float32) / 255)
    np.testing.assert_allclose(y, apply(params, x), atol=1e-5)


def test_each_image_alone_is_as_in_the_batch(fill):
    encoder, x = ImageEncoder(**SMALL), images()
    params = fill(encoder, x)
    together = jax.jit(encoder.apply)(params, x)
    one = jax.jit(jax.vmap(jax.vmap(lambda image: encoder.apply(params, image[None, None])[0, 0])))
    np.testing.assert_allclose(one(x), together, atol=1e-5)


@pytest.mark.parametrize("per_image", [False, True])
def test_missing_images_have_no_influence_and_no_gradient(fill, per_image):
    encoder = ImageEncoder(**TINY)
    clean = images(side=12).astype(np.float32) / 255
    mask = np.array([[1, 0], [0, 1], [1, 1]]) if per_image else np.array([True, False, True])
    params = fill(encoder, clean)
    missing = ~np.broadcast_to(mask.astype(bool).reshape(3, -1), (3, 2))

    @jax.jit
    def run(params, x):
        def loss(params, x):
            y = encoder.apply(params, x, mask)
            return ((y - 1) ** 2).sum(), y

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    (loss, y), (params_grad, image_grad) = run(params, clean)
    for poison in (np.nan, np.inf, -np.inf, 1e30):
        dirty = clean.copy()
        dirty[missing] = poison
        jax.tree.map(
            np.testing.assert_array_equal,
            run(params, dirty),
            ((loss, y), (params_grad, image_grad)),
        )
    np.testing.assert_array_equal(y[missing], 0)
    np.testing.assert_array_equal(image_grad[missing], 0)
    assert np.abs(image_grad[~missing]).max() > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params_grad))
    unmasked = jax.jit(encoder.apply)(params, clean)
    np.testing.assert_allclose(y[~missing], unmasked[~missing], atol=1e-5)


def test_missing_rows_leave_the_parameters_alone(fill):
    encoder, x = ImageEncoder(**TINY), images(batch=2, side=12)
    params = fill(encoder, x)

    def loss(params):
        return (encoder.apply(params, x, np.zeros(2, bool)) ** 2).sum()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params)):
        np.testing.assert_array_equal(leaf, 0)


def test_bfloat16_is_close_and_its_parameters_are_float32(fill):
    x = images(side=48)
    exact, half = ImageEncoder(**SMALL), ImageEncoder(**SMALL, dtype=jnp.bfloat16)
    params = fill(half, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    y, y_half = jax.jit(exact.apply)(params, x), jax.jit(half.apply)(params, x)
    assert y_half.dtype == jnp.float32
    # Eight bits of significand, through six layers, against places within one of the middle.
    np.testing.assert_allclose(y_half, y, atol=0.03)
    assert np.abs(y_half - y).max() > 0


def test_recomputation_changes_no_gradient(fill):
    x = images(batch=1, history=1, side=12)
    params = fill(ImageEncoder(**TINY), x)

    def gradient(**fields):
        encoder = ImageEncoder(**TINY, **fields)
        return jax.jit(jax.grad(lambda p: (encoder.apply(p, x) ** 2).sum()))(params)

    plain, again = gradient(), gradient(remat=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), plain, again)


@pytest.mark.parametrize(
    "x, mask, message",
    [
        (np.zeros((2, 32, 32, 3), np.uint8), None, r"'image' has shape \(2, 32, 32, 3\)"),
        (np.zeros((2, 1, 32, 32, 4), np.uint8), None, r"expected \[B, T, h, w, 3\]"),
        (np.zeros((2, 1, 32, 32, 3), np.int32), None, "'image' is int32; expected uint8"),
        (np.zeros((2, 1, 32, 32, 3)), np.ones((1, 2)), r"mask of 'image' has shape \(1, 2\)"),
        (np.zeros((2, 1, 8, 8, 3)), None, "8x8 pixels, which 2 stages.*at least 9 pixels"),
    ],
)
def test_bad_images_are_named(x, mask, message):
    x = x if x.dtype != np.float64 else x.astype(np.float32)
    encoder = ImageEncoder(**SMALL)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(encoder.init, jax.random.key(0), x, mask)


def test_the_smallest_image_that_the_message_names_works():
    encoder = ImageEncoder(**SMALL)
    jax.eval_shape(encoder.init, jax.random.key(0), np.zeros((1, 1, 9, 9, 3), np.uint8))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"widths": ()}, r"widths is \(\); expected a list of widths"),
        ({"widths": (16, 24)}, "24 is not a multiple of group_size = 16"),
        ({"widths": (0,)}, "widths is 0"),
        ({"blocks": 0}, "ResNet blocks is 0"),
        ({"keypoints": -1}, "ImageEncoder keypoints is -1"),
    ],
)
def test_bad_sizes_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        ImageEncoder(**fields).check_sizes()
