"""One run on RLDS and both generations of LeRobot: its law, killed and resumed, on hosts."""

import json
import pathlib
import signal
import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.data import device, pipeline, statistics, write
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import config as config_lib
from tests.data.storage import lerobot_folders
from tests.data.test_both_paths import expected, p_value

SMALL = {"data.observation": ["state"], "data.horizon": 3, "policy.execute": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{source: folder} of an RLDS data set, LeRobot v2.1 and v3.0, with the same fields."""
    root = tmp_path_factory.mktemp("formats")
    state, action = np.zeros(3, np.float32), np.zeros(2, np.float64)
    rng = np.random.default_rng(0)

    def episodes():
        for length in (8, 5, 9):
            last = np.arange(length) == length - 1
            flags = {n: last for n in ("is_first", "is_last", "is_terminal")}
            rewards = {n: last.astype(np.float32) for n in ("reward", "discount")}
            observed = {"state": rng.normal(size=(length, 3)).astype(np.float32)}
            yield {
                "steps": {
                    "observation": observed,
                    "action": rng.normal(size=(length, 2)),
                    **flags,
                    **rewards,
                }
            }

    rlds = write.write_dataset(
        root,
        name="rlds",
        version="1.0.0",
        features=write.rlds_features({"state": state}, action),
        episodes=episodes(),
    )
    return {
        "good": str(rlds),
        "v2": str(lerobot_folders.write_v2(root / "v2", cameras=())),
        "v3": str(lerobot_folders.write_v3(root / "v3")),
    }


def test_draws_on_both_paths_follow_the_law(folders, tmp_path, monkeypatch):
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(tmp_path))
    config = config_lib.default().data
    config.horizon = 3
    for name, path in folders.items():
        bounds = {"sigma_min": 0.3} if name == "v2" else {"sigma_min": 0.5} if name == "v3" else {}
        role = "corrupt" if bounds else "clean"
        config.sources[name] = config_lib.source(path, role, **bounds)
    law, schedule = mixing.Ambient(), schedules.vp()
    mixture = mixtures.open_mixture(config, law)
    # RLDS ends in a filler, which is dropped; LeRobot's last action is real.
    assert mixture.chunks.tolist() == [8 + 5 + 9 - 3, 7 + 1 + 5, 7 + 1 + 5 + 4]
    mass = expected(law, mixture.sources)
    data = device.load_device_data(mixture)
    batch = jax.jit(mixture.sampler(law, schedule))(data, jax.random.key(0), 0, jnp.arange(10**5))
    assert p_value(batch["sigma"], batch["source"], mass) > 1e-4
    stream = pipeline.stream_batches(mixture, law, schedule, seed=0, batch_size=4000)
    drawn = [next(stream) for _ in range(10)]
    stream.close()
    sigma, source = (np.concatenate([b[n] for b in drawn]) for n in ("sigma", "source"))
    assert p_value(sigma, source, mass) > 1e-4
    # A chunk is that of the episode and step that its id names.
    for row in range(50):
        k, episode, step = drawn[0]["id"][row].tolist()
        source = mixture.datasets[mixture.names[k]]
        actions = mixture.read(k, episode, source[episode])["action"]
        inside = drawn[0]["mask"][row]
        np.testing.assert_array_equal(
            drawn[0]["action"][row][inside], actions[step : step + 3].astype(np.float32)
        )


def _job(folders, workdir, placement, **more):
    changes = SMALL | {"data.placement": placement, "train.steps": 20, "train.log_every": 5}
    return {"workdir": str(workdir), "data": folders, "changes": changes, **more}


def _metrics(workdir):
    return (pathlib.Path(workdir) / "metrics.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "stream"])
def test_killed_it_carries_on_with_the_same_losses(folders, tmp_path, worker, placement):
    whole = worker(_job(folders, tmp_path / "whole", placement))
    worker(_job(folders, tmp_path / "killed", placement, kill=["step", 13]))(-signal.SIGKILL)
    worker(_job(folders, tmp_path / "killed", placement))()
    whole()
    assert _metrics(tmp_path / "killed") == _metrics(tmp_path / "whole")


@pytest.mark.slow
def test_two_hosts_train_as_one_killed_and_resumed(folders, tmp_path, worker):
    """On one host of two shards, and on two of one, which are killed after some steps."""

    def hosts(kill, code):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{s.getsockname()[1]}"
        place = {"coordinator": address, "num_processes": 2}
        own = [place | {"process_id": i} | ({"kill": ["step", 13]} if kill else {}) for i in (0, 1)]
        running = [worker(job("two") | one) for one in own]
        for finish in running:
            finish(code)

    def job(name):
        made = _job(folders, tmp_path / name, "stream")
        made["changes"]["data.shards"] = 2
        return made

    hosts(kill=True, code=-signal.SIGKILL)
    hosts(kill=False, code=0)
    hosts_rows = _metrics(tmp_path / "two")
    worker(job("one"), 2)()
    assert len(hosts_rows.splitlines()) == 4
    for ours, theirs in zip(
        hosts_rows.splitlines(), _metrics(tmp_path / "one").splitlines(), strict=True
    ):
        ours, theirs = json.loads(ours), json.loads(theirs)
        assert ours.keys() == theirs.keys()
        for field, value in theirs.items():
            assert ours[field] == pytest.approx(value, rel=1e-4, abs=1e-6), field
