"""The policies of the table, and the levels that they are given."""

import numpy as np
import pytest

from ambient_jax import observations
from experiments.shifted import config as shifted_config
from experiments.shifted import judge, policies, task
from experiments.table.policies import config_of

BORDER = np.linspace(0.8, 0.0, len(judge.SIGMAS))


def found(sigma_min=0.9):
    return {"moved": judge.Judged(np.zeros((13, 13)), sigma_min, BORDER)}


@pytest.fixture(scope="module")
def base():
    return shifted_config.get_config("table")


def test_every_policy_has_a_valid_config(base):
    rows = policies.rows(base.task, found())
    assert set(rows) == {"clean", "oracle", *(f"moved_{m}" for m in policies.METHODS)}
    for name, row in rows.items():
        config = config_of(base, name, row, 0)  # raises for a field that training refuses
        assert config.data.sources.source.path == (
            "shifted_clean" if name == "oracle" else "shifted_moved"
        )


def test_levels_without_a_classifier_wait_for_it(base):
    assert set(policies.rows(base.task, {})) == {
        *("clean", "oracle", "moved_as_is", "moved_told", "moved_adversarial")
    }


def test_bounds_are_those_of_the_classifier(base):
    rows, minimum = policies.rows(base.task, found()), "data.sources.source.observation_min"
    at = lambda name, sigma: observations.minimum_at(  # noqa: E731
        sigma, observations.curve(rows[name].changes[minimum])
    )
    assert at("moved_noised", 0.99) == pytest.approx(0.8)
    assert (at("moved_dropped", 0.89), at("moved_dropped", 0.91)) == (1, 0)
    for sigma, level in zip(judge.SIGMAS, BORDER, strict=True):
        assert at("moved_plane", round(float(sigma), 6)) == pytest.approx(level, abs=1e-3)
    assert rows["moved_ambient"].changes["data.sources.source.sigma_min"] == 0.9


def test_choice_of_levels_follows_the_plane():
    rho = judge.RHOS[:, None]
    probability = np.broadcast_to(0.5 - 0.2 * (1 - rho), (13, 13))
    chosen = judge.choose(probability, 0.05)
    assert chosen.sigma_min == 1  # the pair as it is looks shifted at every sigma
    np.testing.assert_allclose(chosen.border, 0.75, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"), [("kinds", ("move",)), ("tau", 0.7), ("clean", 7), ("dropped", 1.5)]
)
def test_wrong_values_are_named(field, value):
    config = shifted_config.get_config("table")
    config.task[field] = value
    with pytest.raises(ValueError, match=f"config.*{field}"):
        task.check(config)
