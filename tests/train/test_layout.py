"""A state split over devices trains to the numbers of a whole one, and its files are the same."""

import json
import pathlib
import signal
import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.train import layout as layouts

WIDE = {"model.features": (32,), "model.embed_dim": 64}  # has arrays worth splitting
FSDP = {"train.fsdp": True}


def _job(toy_data, folder, changes, **more):
    base = {"train.steps": 5, "train.warmup": 0, "train.checkpoint_every": 2, "train.log_every": 1}
    changes = base | WIDE | changes
    return {"workdir": str(folder), "data": toy_data, "changes": changes, **more}


def _close(first, second):
    first, second = dict(np.load(first)), dict(np.load(second))
    assert first.keys() == second.keys()
    for name, expected in first.items():
        error = np.linalg.norm(second[name] - expected) / np.linalg.norm(expected)
        assert error <= 1e-5, (name, error)


def _losses(folder):
    rows = pathlib.Path(folder, "metrics.jsonl").read_text().splitlines()
    return [json.loads(row)["loss"] for row in rows]


def test_numbers_of_pmap_killed_and_resumed_on_fewer_devices(toy_data, tmp_path, worker):
    """Four devices split the state and die, two split it anew; pmap does the same on one."""
    files = {name: str(tmp_path / f"{name}.npz") for name in ("whole", "split")}
    whole = worker(_job(toy_data, tmp_path / "whole", {}, params=files["whole"]), 1)
    split = _job(toy_data, tmp_path / "split", FSDP)
    worker(split | {"kill": ["step", 4]}, 4)(-signal.SIGKILL)
    worker(split | {"params": files["split"]}, 2)()
    whole()
    _close(files["whole"], files["split"])
    np.testing.assert_allclose(_losses(tmp_path / "whole"), _losses(tmp_path / "split"), rtol=1e-5)


@pytest.mark.slow
def test_two_hosts_split_a_streamed_run_that_pmap_carries_on(toy_data, tmp_path, worker):
    stream = {"data.placement": "stream", "data.shards": 2}
    files = {name: str(tmp_path / f"{name}.npz") for name in ("whole", "split")}
    worker(_job(toy_data, tmp_path / "whole", stream, params=files["whole"]), 2)()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    hosts = dict(coordinator=address, num_processes=2)
    first = _job(toy_data, tmp_path / "split", stream | FSDP, kill=["sigterm", 3])
    running = [worker(first | hosts | {"process_id": i}, 4) for i in range(2)]
    for finish in running:
        finish()
    worker(_job(toy_data, tmp_path / "split", stream, params=files["split"]), 4)()
    _close(files["whole"], files["split"])


def test_where_arrays_are_cut():
    cut = layouts.Sharded(jax.devices()[:1])
    shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32)  # noqa: E731
    specs = [cut.sharding(shape(*d)).spec for d in ((8, 1024), (2048, 8), (63,), (3, 3))]
    axis = cut.mesh.axis_names[0]
    assert [tuple(s) for s in specs] == [(None, axis), (axis,), (), ()]


def test_a_gathered_network_has_the_gradient_of_the_network():
    cut = layouts.Sharded()
    key = jax.random.key(0)
    params = {"a": jax.random.normal(key, (64, 128)), "b": jnp.ones(128)}
    x = jax.random.normal(jax.random.key(1), (16, 64))

    def network(params, x):
        return jnp.tanh(x @ params["a"]) * params["b"]

    def loss(apply):
        return jax.jit(jax.grad(lambda p: jnp.sum(apply(p, x) ** 2)))

    expected, found = loss(network)(params), loss(cut.applied(network))(cut.place([params]))
    for name in params:
        np.testing.assert_allclose(expected[name], found[name], rtol=1e-5, atol=1e-5)
    [back] = cut.fetch(cut.place([params]))
    assert all(np.array_equal(back[n], params[n]) for n in params)
