"""The closed form of contraction by coloured noise, and the exponent of chunks."""

import numpy as np
import pytest

from ambient_jax import corruption
from experiments.coloured import config as coloured_config
from experiments.coloured import judge, table
from experiments.table import cache

H = 8


def moments(power):
    """Means and covariances of two planners whose chunks [H, 2] have these powers [2, H]."""
    basis = corruption.cosines(H)
    covariance = [np.kron(basis.T @ np.diag(p) @ basis, np.eye(2)) for p in power]
    return np.zeros((2, 2 * H)), np.array(covariance)


@pytest.mark.parametrize("exponent", [0.0, 1.0, -1.0])
def test_divergence_is_the_sum_over_cosines(exponent):
    """The coefficients of each cosine are independent: KL of N(0, v) from N(0, u) is
    (v / u - 1 - log(v / u)) / 2, with the noise's power of that cosine in both."""
    k = np.maximum(np.arange(H), 1.0)
    power = np.array([k**-2.0, k**-1.0])
    noise = k**-exponent / np.mean(k**-exponent)
    got = judge.of_gaussians(*moments(power), exponent)
    for value, sigma in zip(got, judge.LEVELS, strict=True):
        u, v = (1 - sigma**2) * power + sigma**2 * noise
        assert value == pytest.approx(np.sum(v / u - 1 - np.log(v / u)), rel=1e-6, abs=1e-9)
    assert (np.diff(got) < 0).all()


def test_planners_that_differ_at_high_frequencies_are_hidden_earlier_by_noise_there():
    k = np.maximum(np.arange(H), 1.0)
    jagged = np.array([k**-4.0, k**-4.0 + 0.01 * (k > 4)])
    at = [judge.of_gaussians(*moments(jagged), exponent)[6] for exponent in (-1.0, 0.0, 2.0)]
    assert at[0] < at[1] < at[2]


def test_the_exponent_of_a_power_law_is_found():
    assert judge.data_exponent(np.maximum(np.arange(16), 1.0) ** -2.5) == pytest.approx(2.5)


def test_names_of_colours_are_distinct_and_bad_colours_are_named():
    config = coloured_config.get_config("debug")
    names = [judge.key(c) for c in (0.0, "data", 1.0, -1.0)]
    assert names == ["white", "data", "f^-1", "f^1"]
    table.check(config)
    config.task.colours = ("date",)
    with pytest.raises(ValueError, match="config.task.colours"):
        table.check(config)


def test_each_colour_trains_with_the_bound_of_its_own_classifier():
    task = coloured_config.get_config("debug").task
    judged = judge.Judged(2.2, 0.4, *[np.zeros(16)] * 3)
    rows = table.rows(task, {"data": judged})
    assert list(rows) == ["data"]  # what has not been judged cannot train
    assert rows["data"].changes["schedule.colour"] == 2.2
    assert rows["data"].changes["data.sources.rrt.sigma_min"] == 0.4


def test_a_report_judges_nothing_anew(tmp_path, monkeypatch):
    config = coloured_config.get_config("debug")
    config.task.report_only, config.task.colours = True, (0.0,)
    monkeypatch.setattr(judge, "moments", lambda *args: pytest.fail("made"))
    monkeypatch.setattr(judge, "judged", lambda *args: pytest.fail("made"))
    assert judge.annotate(config, tmp_path) == {}
    current, save = ["spectra.npz"], cache.save
    monkeypatch.setattr(cache, "is_current", lambda path, about: path.name in current)
    spectra = dict(zip(("mean", "covariance"), moments(np.ones((2, H))), strict=True))
    (tmp_path / "judged").mkdir()
    save(tmp_path / "judged" / "spectra.npz", {}, spectra | {"power": np.ones((2, H))})
    zeros = np.zeros((3, len(judge.LEVELS)))
    save(tmp_path / "judged" / "white.npz", {}, dict(probability=zeros[0], total_variation=zeros))
    assert judge.annotate(config, tmp_path) == {}
    current.append("white.npz")
    assert judge.annotate(config, tmp_path).keys() == {"white"}
