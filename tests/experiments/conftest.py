"""A network that compiles at once, for tests of whole tables."""

import textwrap

import ml_collections
import pytest

_NETWORK = """
    import flax.linen as nn
    import jax.numpy as jnp


    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x_t, sigma, condition):
            seen = jnp.concatenate([x_t.reshape(len(x_t), -1), sigma[:, None], condition], -1)
            return nn.Dense(x_t[0].size)(seen).reshape(x_t.shape)


    class Flat(nn.Module):
        @nn.compact
        def __call__(self, observation):
            rows = [observation[name] for name in sorted(observation)]
            return jnp.concatenate([row.reshape(len(row), -1) for row in rows], -1)
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """``tiny(config)``: a table's config with a linear network, two steps, one seed."""
    (tmp_path / "linear_network.py").write_text(textwrap.dedent(_NETWORK))
    monkeypatch.syspath_prepend(str(tmp_path))

    def change(config):
        config.data.root = str(tmp_path / "data")
        network = {"name": "linear_network:Linear", "encoder": {"name": "linear_network:Flat"}}
        config.model = ml_collections.ConfigDict(network)
        config.train.update(dict(steps=2, warmup=1, log_every=1, checkpoint_every=2))
        config.policy.steps = 2
        config.task.update(dict(groups=("main",), seeds=(0,), workers=1, together=8))
        return config

    return change
