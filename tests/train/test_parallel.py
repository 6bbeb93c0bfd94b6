import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from ambient_jax.train import parallel

ROOT = pathlib.Path(__file__).parents[2]


def _job(toy_data, tmp_path, name, **more):
    changes = {"train.steps": 5, "train.warmup": 0, "train.checkpoint_every": 5}
    return {"workdir": str(tmp_path / name), "data": toy_data, "changes": changes, **more}


def _params(path):
    return dict(np.load(path))


def _assert_close(first, second):
    """Relative 1e-5 of each array's norm. Entry by entry is no fair question to Adam: where a
    gradient is all rounding, it makes steps of full size out of that rounding."""
    assert first.keys() == second.keys()
    for name in first:
        error = np.linalg.norm(second[name] - first[name]) / np.linalg.norm(first[name])
        assert error <= 1e-5, (name, error)


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("devices", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_same_parameters_on_one_device_on_many_and_on_2_hosts(toy_data, tmp_path, worker, devices):
    """Rows are keyed by their place in the global batch; sums and counts are psummed."""
    running, files = [], {}
    for count in (1, devices):
        files[count] = str(tmp_path / f"{count}.npz")
        job = _job(toy_data, tmp_path, f"d{count}", params=files[count])
        running.append(worker(job, count))
    for finish in running:
        finish()
    files["hosts"] = str(tmp_path / "hosts.npz")
    address = f"127.0.0.1:{_free_port()}"
    hosts = [
        worker(
            _job(
                toy_data,
                tmp_path,
                "hosts",
                params=files["hosts"],
                coordinator=address,
                num_processes=2,
                process_id=i,
            ),
            devices // 2,
        )
        for i in range(2)
    ]
    for finish in hosts:
        finish()
    reference = _params(files[1])
    for other in (devices, "hosts"):
        _assert_close(reference, _params(files[other]))


def test_a_batch_that_does_not_divide():
    with pytest.raises(ValueError, match=r"batch_size is 0, expected a positive multiple"):
        parallel.rows_per_device(0)
    assert parallel.rows_per_device(jax.device_count() * 3) == 3


def test_a_stream_that_the_devices_do_not_divide_is_refused_before_data_are_read(worker, tmp_path):
    job = {"workdir": str(tmp_path), "data": {"good": "nowhere"}}
    changes = {"data.placement": "stream", "train.batch_size": 5}
    text = worker(job | {"changes": changes}, 2)(1)
    assert "train.batch_size is 5, expected a positive multiple of the 2 devices" in text


@pytest.mark.parametrize(("processes", "index"), [(0, 0), (2, 2), (2, -1)])
def test_bad_process_numbers(processes, index):
    with pytest.raises(ValueError, match=f"num_processes is {processes} and process_id {index}"):
        parallel.initialize("localhost:1", processes, index)


def test_a_coordinator_that_is_not_there(monkeypatch):
    lines = []
    monkeypatch.setattr(parallel.logging, "info", lambda text, *a: lines.append(text % a))
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]  # nobody listens at it once it is closed
    with pytest.raises(TimeoutError) as error:
        parallel.initialize(f"localhost:{port}", 2, 1, timeout=1)
    assert lines == [f"host 1 of 2: waiting up to 1 s for the others, coordinator localhost:{port}"]
    assert f"no coordinator answers at localhost:{port} within 1 s" in str(error.value)


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} of the coordinator cannot be used"):
            parallel.initialize(f"localhost:{port}", 2, 0, timeout=1)


def test_a_process_0_that_nobody_joins():
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    code = "from ambient_jax.train import parallel\n"
    code += f"parallel.initialize('localhost:{port}', 2, 0, timeout=1)"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True, timeout=60
    )
    told = f"error: not all of 2 processes have come to the coordinator localhost:{port} within 1 s"
    assert ended.returncode == 1 and told in ended.stderr


def test_auto_joins_the_tasks_of_slurm():
    """Two tasks with the variables that srun sets; JAX takes its port from the job's number."""
    first, last = 2**16 - 2**12, 2**16 - 1
    port = next(p for p in range(first, last) if not _taken(p))
    code = (
        "import jax, jax.numpy as jnp; from ambient_jax.train import parallel;"
        "parallel.initialize('auto'); n = jax.local_device_count();"
        "print(jax.process_index(), jax.pmap(lambda x: jax.lax.psum(x, 'i'), 'i')(jnp.ones(n)))"
    )
    job = {"SLURM_JOB_ID": str(port - first), "SLURM_STEP_NODELIST": "localhost"}
    job |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **job}
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**env, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        printed = [task.communicate(timeout=120)[0].splitlines()[-1] for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    assert printed == ["0 [2.]", "1 [2.]"]


def _taken(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_replicate_and_back():
    tree = {"a": np.arange(3.0), "b": np.int32(4)}
    back = parallel.unreplicate(parallel.replicate(tree))
    np.testing.assert_array_equal(back["a"], tree["a"])
    assert back["b"] == 4 and back["b"].dtype == np.int32


def test_unreplicated_arrays_are_copies():
    """They are saved in the background while the buffers they came from are donated."""
    state = parallel.replicate({"a": np.zeros(4)})
    host = parallel.unreplicate(state)
    step = jax.pmap(lambda s: {"a": s["a"] + 1}, donate_argnums=0)
    for _ in range(3):
        state = step(state)
    np.testing.assert_array_equal(host["a"], np.zeros(4))
    assert host["a"].flags.owndata or host["a"].base.flags.owndata
