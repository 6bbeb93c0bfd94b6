import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.data.normalizer import KINDS, Normalizer, adopt, make_normalizer
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
    """float32 noise on a constant is not blown up to [-1, 1]; a small true range is, if wanted."""
    noisy = np.float32(0.1) + np.array([0, 1, 2]) * np.spacing(np.float32(0.1))
    true = np.array([0, 1e-9, 2e-9])
    values = np.stack([noisy, true], -1)
    scaled = make_normalizer({"demos": statistics_of(action=values)}, least_range=0)
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


def test_sources_of_one_group_share_their_map(values, measured):
    other = values["small"] + 7
    more = measured | {"other": statistics_of(action=other, observation__state=other[:, :2])}
    groups = {"small": "arm", "large": "arm", "other": ""}
    maps = make_normalizer(more, "gaussian", "group", groups=groups)
    pooled = make_normalizer(measured, "gaussian")
    for name in ("small", "large"):
        for kind in ("shift", "scale"):
            own, shared = (getattr(m, kind)["action"] for m in (maps.for_source(name), pooled))
            np.testing.assert_array_equal(own, shared)
    unit = maps.for_source("other").normalize("action", other)
    np.testing.assert_allclose(unit.mean(0), 0, atol=5e-3)
    alone = make_normalizer(more, "gaussian", "group")
    np.testing.assert_array_equal(
        alone.shift["action"], make_normalizer(more, "gaussian", "source").shift["action"]
    )


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
        (lambda m, s: Normalizer.from_json("{}"), "not the JSON of a Normalizer.*'shift'"),
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


@pytest.mark.parametrize("per", ["mixture", "source"])
@pytest.mark.parametrize("kind", ["bounds", "gaussian", "quantiles"])
def test_fillers_of_what_a_source_lacks_count_nowhere(kind, per):
    """A dimension's map is that of the sources that have it; one that nobody has is constant 0."""
    rng = np.random.default_rng(0)
    arm, probe = rng.uniform(1, 3, (60, 4)), rng.uniform(1, 5, (90, 4))
    arm[:, 3], probe[:, 2:] = 7, 0
    masks = {"arm": {"action": [1, 1, 1, 0]}, "probe": {"action": [1, 1, 0, 0]}}
    both = {"arm": statistics_of(action=arm), "probe": statistics_of(action=probe)}
    made = make_normalizer(both, kind, per, masks=masks)
    two = {n: statistics_of(action=v[:, :2]) for n, v in (("arm", arm), ("probe", probe))}
    expected = make_normalizer(two, kind, per)
    alone = make_normalizer({"arm": statistics_of(action=arm[:, 2:3])}, kind)
    for field in ("shift", "scale"):
        maps = np.atleast_2d(getattr(made, field)["action"])
        np.testing.assert_array_equal(
            maps[:, :2], np.atleast_2d(getattr(expected, field)["action"])
        )
        np.testing.assert_array_equal(maps[0, 2], getattr(alone, field)["action"][0])
        np.testing.assert_array_equal(maps[:, 3], 0)


def test_quantiles_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 2)) ** 3 for n in (300, 1000)]
    low, high = np.quantile(np.concatenate(parts), [0.01, 0.99], axis=0)
    both = {str(i): statistics_of(action=p) for i, p in enumerate(parts)}
    made = make_normalizer(both, "quantiles")
    unit = made.normalize("action", np.stack([low, high]))
    np.testing.assert_allclose(unit, [[-1, -1], [1, 1]], atol=1e-6)


def test_quantiles_of_a_sample_weigh_sources_by_their_rows():
    """30000 rows around 0 and 3000 around 100: the largest 1 % are the larger 11 % of these."""
    rng = np.random.default_rng(1)
    parts = {"many": rng.uniform(-1, 1, (30_000, 1)), "few": rng.uniform(99, 101, (3000, 1))}
    made = make_normalizer({n: statistics_of(action=v) for n, v in parts.items()}, "quantiles")
    every = np.sort(np.concatenate(list(parts.values()))[:, 0])
    low, high = made.unnormalize("action", np.array([[-1.0], [1.0]]))[:, 0]
    for level, found in ((0.01, low), (0.99, high)):
        rank = np.searchsorted(every, found) / len(every)
        assert abs(rank - level) < 4 * np.sqrt(0.01 * 0.99 / 4096), (level, rank)


def test_a_gripper_without_range_between_its_quantiles_keeps_its_own():
    values = np.zeros((1000, 1))
    values[500:503] = 1
    made = make_normalizer({"demos": statistics_of(action=values)}, "quantiles")
    assert made.normalize("action", np.array([[0.0], [1.0]])).tolist() == [[-1], [1]]


@pytest.mark.parametrize(("offset", "width"), [(0, 1e-9), (1.5691, 2e-6), (1e-3, 3e-5)])
@pytest.mark.parametrize("kind", ["bounds", "gaussian", "quantiles"])
def test_noise_of_a_sensor_is_not_stretched(kind, offset, width):
    values = offset + np.random.default_rng(0).uniform(-width, width, (400, 1))
    made = make_normalizer({"demos": statistics_of(action=values)}, kind)
    assert np.abs(made.normalize("action", values)).max() <= max(1.2 * width / 5e-5, 1e-3)
    stretched = make_normalizer({"demos": statistics_of(action=values)}, kind, least_range=0)
    assert np.abs(stretched.normalize("action", values)).max() > 0.9


@pytest.mark.parametrize("kind", ["bounds", "gaussian"])
@pytest.mark.parametrize("stamp", [1e6, 1.7e9])
def test_a_small_range_about_a_large_value(kind, stamp):
    """As time stamps of float64: what is mapped has all digits that float32 has near 1."""
    small = np.linspace(0, 10, 101)[:, None]
    far = make_normalizer({"a": statistics_of(action=stamp + small)}, kind)
    near = make_normalizer({"a": statistics_of(action=small)}, kind)
    found = far.normalize("action", stamp + small).astype(np.float32)
    np.testing.assert_allclose(found, near.normalize("action", small), atol=1e-6)
    again = Normalizer.from_json(far.to_json()).normalize("action", stamp + small)
    np.testing.assert_array_equal(again.astype(np.float32), found)


@pytest.mark.parametrize("kind", ["bounds", "gaussian"])
def test_a_centre_that_float32_holds_by_chance_still_asks_for_float64(kind):
    def is_wide(values):
        shift = make_normalizer({"a": statistics_of(action=values)}, kind).shift["action"]
        return (shift != shift.astype(np.float32)).any()

    around = np.linspace(-5, 5, 101)[:, None]
    assert is_wide(1.7e9 + around)  # a multiple of 128, the spacing of float32 there
    assert is_wide(1e8 + around)
    assert not is_wide(1.0 + around)
    assert not is_wide((1.7e9 + 1000 * around).astype(np.float32))


def test_json_of_before_has_a_float32_shift():
    text = '{"kind": "bounds", "sources": [], "shift": {"action": [0.10000000149011612]}, '
    made = Normalizer.from_json(text + '"scale": {"action": [2.0]}}')
    x = np.array([[1.1]], np.float32)
    assert made.normalize("action", x).dtype == np.float32
    assert made.normalize("action", x)[0, 0] == (x[0, 0] - np.float32(0.1)) / 2


def glitchy(value, rows=250, at=110):
    values = np.random.default_rng(0).uniform(-1, 1, (rows, 2))
    values[at, 0] = value
    return values


@pytest.mark.parametrize("value", [4000.0, -100.0, 1e30])
@pytest.mark.parametrize("kind", ["bounds", "gaussian"])
def test_one_glitch_is_left_out(kind, value):
    values = glitchy(value)
    rest = np.delete(values, 110, axis=0)
    made = make_normalizer({"a": statistics_of(action=values)}, kind)
    expected = make_normalizer({"a": statistics_of(action=rest)}, kind)
    x = rest.astype(np.float32)
    np.testing.assert_allclose(
        made.normalize("action", x)[:, 0], expected.normalize("action", x)[:, 0], atol=1e-5
    )
    kept = make_normalizer({"a": statistics_of(action=values)}, kind, outliers="keep")
    assert kept.normalize("action", x)[:, 0].std() < 0.1


def sparse(name):
    values = np.random.default_rng(0).normal(0, 1e-3, (400, 1))
    if name == "gripper":
        values[:], values[200:203] = 0, 1
    if name == "one press":
        values[:], values[200] = 0, 1
    if name == "rarely moved joint":
        values[200:204, 0] = [0.3, 0.9, 0.6, 0.2]
    if name == "a code":
        values[[20, 150, 300]] = 65535
    if name == "two modes":
        values[350:] += 50
    if name == "at the edge":
        values[200] = 0.03
    if name == "now and then":
        values[[20, 150, 300], 0] = [0.3, 0.9, -0.5]
    return values


@pytest.mark.parametrize(
    "name",
    [
        *("gripper", "one press", "rarely moved joint", "a code", "two modes", "at the edge"),
        "now and then",
    ],
)
def test_what_is_rare_is_kept(name):
    """Repeated values, motions, near values and three of a dimension are no lone glitches."""
    values = sparse(name)
    made = make_normalizer({"a": statistics_of(action=values)})
    low, high = made.unnormalize("action", np.array([[-1.0], [1.0]]))[:, 0]
    np.testing.assert_allclose(
        [low, high], [values.min(), values.max()], atol=1e-6 * (high - low) + 1e-8
    )


def test_base_maps_are_taken_where_they_fit(values, measured):
    base, new = make_normalizer({"small": measured["small"]}), make_normalizer(measured)
    found, kept = adopt(base, new)
    assert not kept
    np.testing.assert_array_equal(found.scale["action"], base.scale["action"])
    # A map for all serves each source; of maps a source those of the same name, or the clean one's.
    each, kept = adopt(base, make_normalizer(measured, per="source"))
    assert not kept and (each.scale["action"] == base.scale["action"]).all()
    every = make_normalizer(measured, per="source")
    found, kept = adopt(every, new, "large")
    np.testing.assert_array_equal(found.shift["action"], every.shift["action"][1])
    assert adopt(every, new)[1] == ["all: the base has a map a source"]
    renamed = make_normalizer(
        {"large": measured["small"], "other": measured["small"]}, per="source"
    )
    found, kept = adopt(every, renamed)
    assert kept == ["source other"]
    np.testing.assert_array_equal(found.shift["action"][0], every.shift["action"][1])
    np.testing.assert_array_equal(found.shift["action"][1], renamed.shift["action"][1])


def test_a_dimension_that_the_base_never_saw_move_is_new(values):
    still = values["small"].copy()
    still[:, 1] = 3
    base = make_normalizer({"a": statistics_of(action=still)})
    new = make_normalizer({"a": statistics_of(action=values["small"])})
    found, kept = adopt(base, new)
    assert kept == ["action[1]"] and found.scale["action"][1] == new.scale["action"][1] > 0
    wider = make_normalizer({"a": statistics_of(action=np.tile(values["small"], 2))})
    assert adopt(base, wider)[1] == ["action"]
