"""An encoder and a loss from outside the package; tests/test_extending.py has the rest."""

import importlib.util
import pathlib
import textwrap

import jax
import ml_collections
import numpy as np
import pytest

from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint, step, trainer
from ambient_jax.train import config as config_lib

_SPEC = importlib.util.spec_from_file_location(
    "worker_module", pathlib.Path(__file__).parent / "worker.py"
)
worker_module = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(worker_module)

OUTSIDE = """
    import flax.linen as nn
    import jax.numpy as jnp

    from ambient_jax import losses


    class Linear(nn.Module):
        width: int = 8

        @nn.compact
        def __call__(self, x_t, sigma, condition):
            seen = jnp.concatenate([x_t.reshape(len(x_t), -1), sigma[:, None], condition], -1)
            hidden = nn.Dense(self.width, name="hidden")(seen)
            return nn.Dense(x_t[0].size, name="out")(hidden).reshape(x_t.shape)


    class Flat(nn.Module):
        @nn.compact
        def __call__(self, observation):
            rows = [observation[name] for name in sorted(observation)]
            return jnp.concatenate([row.reshape(len(row), -1) for row in rows], -1)


    def halved(*args, **options):
        return losses.denoising_loss(*args, **options) / 2
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    (tmp_path / "outside_the_package.py").write_text(textwrap.dedent(OUTSIDE))
    monkeypatch.syspath_prepend(str(tmp_path))
    return "outside_the_package"


def test_networks_and_a_loss_from_outside_in_one_run_and_its_policy(toy_data, tmp_path, outside):
    config = worker_module.config_for({"data": toy_data, "changes": {"train.steps": 5}})
    section = lambda name, **options: ml_collections.ConfigDict({"name": name, **options})  # noqa: E731
    config.model = section(f"{outside}:Linear", width=6, encoder=section(f"{outside}:Flat"))
    config.objective.loss = f"{outside}:halved"
    assert trainer.train(config, tmp_path / "run") == (5, "")
    params = checkpoint.load_policy_assets(tmp_path / "run")["params"]
    assert params["backbone"]["hidden"]["kernel"].shape == (8 * 2 + 1 + 2 * 2 * 2, 6)
    policy = Policy.from_checkpoint(tmp_path / "run")
    assert type(policy.model.backbone).__name__ == "Linear"
    observation = {name: np.zeros((3, 2, 2), np.float32) for name in ("state", "goal")}
    assert policy(observation, jax.random.key(0)).shape == (3, 8, 2)
    config.model.widht = 8
    with pytest.raises(ValueError, match="config.model: .*'widht'.*did you mean 'width'"):
        config_lib.check(config)


def test_a_loss_from_outside_is_a_kernel_of_one_sample(outside):
    """Half of the loss it calls, with half of its gradient."""
    rng = np.random.default_rng(0)
    batch = {
        "observation": {},
        "action": rng.normal(size=(4, 3, 2)).astype(np.float32),
        "mask": np.ones((4, 3), bool),
        "sigma": np.linspace(0.1, 0.9, 4, dtype=np.float32),
        "sigma_min": np.float32([0, 0.4, 0, 0.4]),
        "sigma_max": np.float32([1, 0, 1, 0]),
    }
    keys = jax.random.split(jax.random.key(0), 4)
    value = {}
    for loss in ("denoising", f"{outside}:halved"):
        apply = lambda params, x_t, sigma, observation: params * x_t  # noqa: E731
        total = step.make_loss(step.Objective(loss=loss), apply)
        value[loss] = jax.value_and_grad(lambda p: total(p, batch, keys, keys[0])[0])(0.5)  # noqa: B023
    plain, halved = value.values()
    np.testing.assert_allclose(2 * np.float32(halved), plain, rtol=1e-5)


@pytest.mark.parametrize("field", ["law.name", "schedule.name", "model.name", "objective.loss"])
@pytest.mark.parametrize("name", ["nowhere:Thing", "math:Thing", ":", "ambient_jax.mixing:LAWS"])
def test_a_name_that_stands_for_nothing_is_one_line(field, name):
    config = config_lib.default()
    config.update_from_flattened_dict({field: name})
    with pytest.raises(ValueError, match=f"config.{field.split('.')[0]}") as error:
        config_lib.check(config)
    assert "\n" not in str(error.value)
