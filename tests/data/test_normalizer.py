import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.data.normalizer import KINDS, Normalizer, make_normalizer
from ambient_jax.data.statistics import Moments, SourceStatistics


def statistics_of(**fields):
    count = len(next(iter(fields.values())))
    moments = {n.replace("__", "/"): Moments.of(v) for n, v in fields.items()}
    return SourceStatistics(moments, np.array([count]))


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    return {
        "small": rng.normal(size=(40, 3)) * [1, 100, 1e-4] + [0, 1000, 5],
        "large": rng.normal(size=(200, 3)) * [2, 10, 1e-4] + [1, 900, 5],
    }


@pytest.fixture(scope="module")
def measured(values):
    return {n: statistics_of(action=v, observation__state=v[:, :2]) for n, v in values.items()}


def test_bounds_map_to_unit_interval(values, measured):
    scaled = make_normalizer(measured)
    every = np.concatenate(list(values.values()))
    unit = scaled.normalize("action", every)
    np.testing.assert_allclose(unit.min(0), -1, atol=5e-3)  # 1e-4 around 5 has few float32 digits
    np.testing.assert_allclose(unit.max(0), 1, atol=5e-3)


def test_gaussian_has_zero_mean_and_unit_deviation(values, measured):
    scaled = make_normalizer(measured, "gaussian")
    unit = scaled.normalize("action", np.concatenate(list(values.values())))
    np.testing.assert_allclose(unit.mean(0), 0, atol=5e-3)
    np.testing.assert_allclose(unit.std(0), 1, atol=5e-3)


def test_none_changes_nothing(values, measured):
    scaled = make_normalizer(measured, "none")
    np.testing.assert_array_equal(scaled.normalize("action", values["small"]), values["small"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrap", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_round_trip(values, measured, kind, wrap):
    scaled = make_normalizer(measured, kind)
    x = wrap(values["small"].astype(np.float32).reshape(4, 10, 3))
    unit = scaled.normalize("action", x)
    assert isinstance(unit, type(x)) and unit.dtype == np.float32 and unit.shape == x.shape
    back = scaled.unnormalize("action", unit)
    assert isinstance(back, type(x)) and back.dtype == np.float32
    np.testing.assert_allclose(back, x, rtol=1e-6, atol=1e-6)
    jitted = jax.jit(lambda v: scaled.unnormalize("action", scaled.normalize("action", v)))(x)
    np.testing.assert_allclose(jitted, x, rtol=1e-6, atol=1e-6)
    one = jax.vmap(lambda v: scaled.normalize("action", v))(x)
    np.testing.assert_allclose(one, unit, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["bounds", "gaussian"])
@pytest.mark.parametrize("constant", [0.0, 3.0, -1e6, 1e-8])
def test_constant_dimensions_map_to_zero_and_back(kind, constant):
    values = np.stack([np.full(9, constant), np.arange(9.0)], -1)
    scaled = make_normalizer({"demos": statistics_of(action=values)}, kind)
    unit = scaled.normalize("action", values)
    assert np.all(unit[:, 0] == 0) and np.ptp(unit[:, 1]) > 1
    assert scaled.normalize("action", np.array([constant + 5, 0.0]))[0] == 0
    back = scaled.unnormalize("action", unit + [7, 0])
    np.testing.assert_array_equal(back[:, 0], np.float32(constant))


def test_rounding_is_no_range():
    """float32 noise on a constant is not blown up to [-1, 1]; a small true range is."""
    noisy = np.float32(0.1) + np.array([0, 1, 2]) * np.spacing(np.float32(0.1))
    true = np.array([0, 1e-9, 2e-9])
    values = np.stack([noisy, true], -1)
    scaled = make_normalizer({"demos": statistics_of(action=values)})
    assert np.all(scaled.normalize("action", values)[:, 0] == 0)
    np.testing.assert_allclose(scaled.normalize("action", values)[:, 1], [-1, 0, 1], atol=1e-5)


@pytest.mark.parametrize("per", ["mixture", "source"])
@pytest.mark.parametrize("kind", KINDS)
def test_json_is_exact(values, measured, kind, per):
    scaled = make_normalizer(measured, kind, per)
    back = Normalizer.from_json(scaled.to_json())
    assert (back.kind, back.sources) == (kind, scaled.sources)
    source = 1 if per == "source" else None
    for name, x in (("action", values["large"]), ("observation/state", values["large"][:, :2])):
        np.testing.assert_array_equal(
            back.normalize(name, x, source), scaled.normalize(name, x, source)
        )


def test_each_source_its_own(values, measured):
    scaled = make_normalizer(measured, per="source")
    assert scaled.sources == ("small", "large")
    alone = {n: make_normalizer({n: m}) for n, m in measured.items()}
    rows = np.stack([values["small"][:5], values["large"][:5], values["small"][5:10]])
    expected = np.stack(
        [alone[n].normalize("action", r) for n, r in zip(("small", "large", "small"), rows)]  # noqa: B905
    )
    rows, expected = rows.astype(np.float32), expected.astype(np.float32)
    source = np.array([0, 1, 0])
    normalized = scaled.normalize("action", rows, source)
    np.testing.assert_allclose(normalized, expected, atol=5e-3)  # 1e-4 around 5 in float32
    for of in (scaled, scaled.for_source("large"), alone["large"]):
        index = 1 if of is scaled else None
        np.testing.assert_array_equal(of.normalize("action", rows[1], index), normalized[1])
    jitted = jax.jit(lambda x, s: scaled.normalize("action", x, s))
    np.testing.assert_allclose(jitted(rows, source), normalized, rtol=1e-5)
    back = jax.vmap(lambda x, s: scaled.unnormalize("action", x, s))(expected, jnp.asarray(source))
    np.testing.assert_allclose(back, rows, rtol=1e-5)


def test_for_source_of_a_shared_map_is_itself(measured):
    scaled = make_normalizer(measured)
    assert scaled.for_source("small") is scaled


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, s: m.normalize("actions", 0), "field is 'actions'.*did you mean 'action'"),
        (lambda m, s: m.normalize("action", np.zeros((4, 2))), r"\(4, 2\), expected \[..., 3\]"),
        (lambda m, s: m.normalize("action", 1.0), r"\(\), expected \[..., 3\]"),
        (lambda m, s: m.normalize("action", np.zeros(3), 0), "source is 0, expected None"),
        (lambda m, s: s.normalize("action", np.zeros(3)), "source is None, .*one of small, large"),
        (lambda m, s: s.for_source("smal"), "did you mean 'small'"),
        (lambda m, s: Normalizer.from_json("{}"), "not the JSON of a Normalizer.*'kind'"),
        (lambda m, s: Normalizer.from_json("[1"), "not the JSON of a Normalizer"),
    ],
)
def test_bad_calls(measured, call, message):
    with pytest.raises(ValueError, match=message):
        call(make_normalizer(measured), make_normalizer(measured, per="source"))


def test_unknown_kinds(measured):
    with pytest.raises(ValueError, match="normalization is 'bound'.*did you mean 'bounds'"):
        make_normalizer(measured, "bound")
    with pytest.raises(ValueError, match="normalize_per is 'sources'.*did you mean 'source'"):
        make_normalizer(measured, per="sources")
