"""Writes and reads data sets with LeRobot's own package; run by a Python that has it.

    python lerobot_recipe.py write FOLDER CODEC [SIZE LENGTHS]
    python lerobot_recipe.py read FOLDER OUT.npz

LeRobot 0.4 writes v3.0, 0.3 writes v2.1. Such a Python, without LeRobot's robots and policies:

    python3.11 -m venv lerobot
    lerobot/bin/pip install --no-deps lerobot==0.4.4 torchcodec==0.10.0
    lerobot/bin/pip install torch==2.10.0 torchvision==0.25.0 'datasets>=4,<5' 'av>=15,<16' \
        'huggingface-hub<0.36' jsonlines 'packaging<26' einops draccus==0.10.0 deepdiff termcolor \
        opencv-python-headless accelerate gymnasium imageio 'setuptools<81'
    apt-get install ffmpeg  # whose libraries torchcodec loads

For v2.1 the same with lerobot==0.3.3 and datasets==3.6.0.

No import of the project: that Python does not have what it needs.
"""

import inspect
import json
import os
import sys

import numpy as np

if __name__ == "__main__":  # a process of its own, before it imports LeRobot
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
HZ = 10
TASKS = ["pick the cup", "push the block"]
FRONT, WRIST, STORED = (f"observation.images.{n}" for n in ("front", "wrist", "stored"))


def shades(episode, step, height, width, camera=0):
    """A smooth picture that tells episode, step and camera."""
    down, right = np.mgrid[:height, :width] / max(height, width)
    phase = 0.7 * step + 2.1 * episode + camera
    planes = [np.sin(phase + 3 * down), np.cos(phase + 2 * right), np.sin(2 * phase - right)]
    return np.round(127 + 100 * np.stack(planes, -1)).astype(np.uint8)


def texture(episode, size):
    """Coarse and fine noise, [size, size, 3]."""
    rng = np.random.default_rng(episode)
    layers = []
    for cells, amplitude in ((8, 40), (32, 25), (128, 8)):
        coarse = rng.normal(size=(cells, cells, 3)) * amplitude
        layers.append(coarse.repeat(size // cells, 0).repeat(size // cells, 1))
    return sum(layers)


def values(episode, step):
    """What a step holds beside its pictures."""
    rng = np.random.default_rng((episode, step))
    return {
        "observation.state": rng.normal(size=4).astype(np.float32),
        "observation.matrix": rng.normal(size=(2, 3)).astype(np.float32),
        "action": rng.normal(size=3),
        "next.reward": rng.random(1).astype(np.float32),
        "next.done": np.array([step % 2 == 1]),
        "count": np.array([1000 * episode + step]),
        "note": f"note {episode} {step}",
    }


def features(size):
    out = {
        n: {"dtype": v.dtype.name, "shape": v.shape, "names": None}
        for n, v in values(0, 0).items()
        if n != "note"
    }
    out["note"] = {"dtype": "string", "shape": (1,), "names": None}
    for camera in (FRONT, WRIST, STORED):
        dtype = "image" if camera == STORED else "video"
        names = ["height", "width", "channels"]
        out[camera] = {"dtype": dtype, "shape": (size, size, 3), "names": names}
    return out


def write(folder, codec, size=64, lengths=(12, 5, 9, 2, 7), only_video=False):
    """A data set of all kinds of fields in small files; or, to time, of one camera that moves."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    fields = features(size)
    if only_video:
        fields = {n: fields[n] for n in ("observation.state", "action", FRONT)}
    options = {"fps": HZ, "features": fields, "root": folder, "robot_type": "toy"}
    if "vcodec" in inspect.signature(LeRobotDataset.create).parameters:
        options["vcodec"] = codec
    data = LeRobotDataset.create("local/toy", **options)
    if not only_video and hasattr(data.meta, "update_chunk_settings"):
        # So small that a new file begins in between, at other episodes for videos than for numbers.
        data.meta.update_chunk_settings(data_files_size_in_mb=0.01, video_files_size_in_mb=0.0035)
    old = "task" in inspect.signature(data.add_frame).parameters
    for episode, length in enumerate(lengths):
        rough = texture(episode, size) if only_video else np.zeros(())
        for step in range(length):
            frame = {n: v for n, v in values(episode, step).items() if n in fields}
            for number, camera in enumerate(c for c in (FRONT, WRIST, STORED) if c in fields):
                picture = shades(episode, step, size, size, number)
                if only_video:  # it moves as a camera does
                    picture = (picture + np.roll(rough, (step, 3 * step), (0, 1))).clip(0, 255)
                frame[camera] = picture.astype(np.uint8)
            task = TASKS[episode % 2]
            data.add_frame(frame, task=task) if old else data.add_frame({**frame, "task": task})
        data.save_episode()
    if hasattr(data, "finalize"):
        data.finalize()


def read(folder, out):
    """All items as LeRobot's reader gives them; pictures as uint8 [N, h, w, 3]."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("local/toy", root=folder)
    items = [data[i] for i in range(len(data))]
    arrays = {}
    for name in items[0]:
        column = [i[name] if isinstance(i[name], str) else i[name].numpy() for i in items]
        array = np.stack(column) if not isinstance(column[0], str) else np.array(column)
        if name in data.meta.camera_keys:
            array = np.round(255 * array.transpose(0, 2, 3, 1)).astype(np.uint8)
        arrays[name] = array
    stats = {
        n: {k: np.asarray(v).tolist() for k, v in s.items()} for n, s in data.meta.stats.items()
    }
    np.savez(out, **arrays, stats=json.dumps(stats), episodes=len(data.meta.episodes))


if __name__ == "__main__":
    job, *arguments = sys.argv[1:]
    if job == "write":
        folder, codec, *more = arguments
        extra = (int(more[0]), json.loads(more[1]), True) if more else ()
        write(folder, codec, *extra)
    else:
        read(*arguments)
