"""Pictures of a training at its checkpoints, beside which the training is what it was."""

import importlib.util
import logging
import pathlib
import socket
import sys
import threading

import numpy as np
import PIL.Image
import pytest

from ambient_jax.train import config as config_lib
from ambient_jax.train import metrics, pictures, runs, sweep, trainer
from tests.rollout import envs  # noqa: F401 (has the network of these configs)

_SPEC = importlib.util.spec_from_file_location(
    "worker_module", pathlib.Path(__file__).parent / "worker.py"
)
worker_module = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(worker_module)


def config_for(data, **changes):
    config = worker_module.config_for({"data": data})
    config.model = {"name": "tests.rollout.envs:Mlp"}
    config.policy.steps = 2
    config.train.update({"steps": 20, "pictures": 3})
    for name, value in changes.items():
        config.train[name] = value
    return config


def test_every_checkpoint_has_pictures_and_the_training_its_numbers(toy_data, tmp_path):
    for name, count in (("with", 3), ("without", 0)):
        config = config_for(toy_data, pictures=count, pictures_split="train[50%:]")
        assert trainer.train(config, tmp_path / name) == (20, "")
    files = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("with", "without")]
    assert files[0] == files[1]
    assert not (tmp_path / "without" / "pictures").exists()
    folder = tmp_path / "with" / "pictures"
    drawn = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    steps = ("00000010.png", "00000020.png")
    assert drawn == [f"{name}/{step}" for name in ("chunks", "losses") for step in steps]
    first, last = (np.asarray(PIL.Image.open(folder / "chunks" / step)) for step in steps)
    assert first.shape == last.shape and (first != last).any()
    [events] = (tmp_path / "with" / "tensorboard").iterdir()
    content = events.read_bytes()
    assert content.count(b"pictures/chunks") == content.count(b"pictures/losses") == 2


@pytest.mark.slow
def test_each_policy_of_a_sweep_is_drawn(toy_data, tmp_path):
    configs = {name: config_for(toy_data) for name in "ab"}
    configs["b"].seed = 1
    sweep.train(configs, tmp_path)
    paths = [tmp_path / name / "pictures" / "chunks" / "00000020.png" for name in "ab"]
    one, other = (np.asarray(PIL.Image.open(path)) for path in paths)
    assert one.shape == other.shape and (one != other).any()


@pytest.mark.slow
def test_of_two_hosts_the_first_draws(toy_data, tmp_path, worker):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    changes = {"train.pictures": 2, "train.steps": 20, "policy.steps": 2}
    job = {"workdir": str(tmp_path), "data": toy_data, "changes": changes}
    job |= {"coordinator": address, "num_processes": 2}
    running = [worker(job | {"process_id": process}) for process in range(2)]
    for finish in running:
        assert '"step": 20' in finish()
    drawn = [path.name for path in sorted((tmp_path / "pictures" / "chunks").iterdir())]
    assert drawn == ["00000010.png", "00000020.png"]


def test_what_cannot_be_drawn_is_said_before_the_training(toy_data, tmp_path, monkeypatch):
    config = config_for(toy_data, pictures_split="nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        trainer.train(config, tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())
    with pytest.raises(ValueError, match="config.train.pictures is -1, expected .*at least 0"):
        config_lib.check(config_for(toy_data, pictures=-1))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match="matplotlib, which is not installed: pip install matplotlib"
    ):
        pictures.check(config_for(toy_data))
    pictures.check(config_for(toy_data, pictures=0))


def test_a_run_may_resume_with_other_pictures(toy_data):
    one, other = config_for(toy_data), config_for(toy_data, pictures=0, pictures_split="val")
    assert runs.differences(one.to_dict(), other.to_dict()) == {}


def test_the_training_waits_only_if_it_is_two_checkpoints_ahead(tmp_path):
    writer, may_draw, drawn = metrics.Writer(tmp_path), threading.Event(), []

    def painter(step, params, writer):
        assert may_draw.wait(60)
        drawn.append(params)
        writer.picture(step, "dot", np.full((4, 4, 3), params, np.uint8))

    painted = pictures.Pictures([painter], [writer])
    painted.draw(1, [10])  # would wait for ever if draw did
    painted.draw(2, [20])
    third = threading.Thread(target=painted.draw, args=(3, [30]))
    third.start()
    third.join(0.05)
    assert third.is_alive() and not drawn
    may_draw.set()
    third.join(60)
    painted.close()
    writer.close()
    assert drawn == [10, 20, 30]
    image = np.asarray(PIL.Image.open(tmp_path / "pictures" / "dot" / "00000003.png"))
    assert image.shape == (4, 4, 3) and (image == 30).all()


def test_a_picture_that_fails_is_a_warning(tmp_path, caplog):
    writer = metrics.Writer(tmp_path)

    def painter(step, params, writer):
        raise ValueError("no\nchunk")

    painted = pictures.Pictures([painter], [writer])
    with caplog.at_level(logging.WARNING):
        painted.draw(5, [None])
        painted.close()
    writer.close()
    assert "no pictures of step 5 (ValueError: no chunk)" in caplog.text
