"""Small data sets in the formats of robotics, written by the libraries that these formats use."""

import json
import os
import shutil
from fractions import Fraction

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

# A replay buffer: where its episodes end.
ENDS = np.array([3, 8, 9, 15, 21, 28, 30, 41])
STEPS = 41


def zarr_arrays():
    rng = np.random.default_rng(0)
    return {
        "action": rng.normal(size=(STEPS, 2)).astype("f4"),
        "state": rng.normal(size=(STEPS, 5)),
        "keypoint": rng.normal(size=(STEPS, 9, 2)).astype("f4"),
        "img": rng.integers(0, 256, (STEPS, 6, 7, 3)).astype("f4"),
        "camera": rng.integers(0, 256, (STEPS, 4, 4, 3), np.uint8),
    }


def write_zarr(path, arrays=None, ends=ENDS, zarr_format=2, compressors="auto"):
    store = zarr.storage.ZipStore(path, mode="w") if str(path).endswith(".zip") else path
    root = zarr.open_group(store, mode="w", zarr_format=zarr_format)
    data, meta = root.create_group("data"), root.create_group("meta")
    for name, values in (zarr_arrays() if arrays is None else arrays).items():
        chunks = (7, *values.shape[1:])
        array = data.create_array(
            name, shape=values.shape, chunks=chunks, dtype=values.dtype, compressors=compressors
        )
        array[:] = values
    if ends is not None:
        array = meta.create_array(
            "episode_ends", shape=np.shape(ends), dtype=np.asarray(ends).dtype
        )
        array[...] = ends
    root.store.close()
    return path


# robomimic: steps by number of the demonstration; demo_10 comes after demo_2.
DEMOS = {0: 4, 1: 6, 2: 3, 10: 5, 11: 7}
ENV_ARGS = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}


def demo_arrays(number, length):
    rng = np.random.default_rng(number)
    obs = {
        "robot0_eef_pos": rng.normal(size=(length, 3)),
        "object": rng.normal(size=(length, 10)).astype("f4"),
        "agentview_image": rng.integers(0, 256, (length, 5, 6, 3), np.uint8),
    }
    return {
        "actions": rng.uniform(-1, 1, (length, 7)),
        **{f"obs/{name}": values for name, values in obs.items()},
        **{f"next_obs/{name}": np.roll(values, -1, 0) for name, values in obs.items()},
        "rewards": rng.random(length),
        "dones": np.arange(length) == length - 1,
        "states": rng.normal(size=(length, 32)),
    }


def write_robomimic(
    path, lengths=DEMOS, env_args=ENV_ARGS, mask=None, change=None, compression="gzip"
):
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        if env_args is not None:
            data.attrs["env_args"] = env_args if isinstance(env_args, str) else json.dumps(env_args)
        data.attrs["total"] = sum(lengths.values())
        for number, length in lengths.items():
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"], demo.attrs["model_file"] = length, "<mujoco/>"
            for name, values in demo_arrays(number, length).items():
                demo.create_dataset(name, data=values, compression="gzip" if length else None)
        for name, demos in (mask or {}).items():
            file[f"mask/{name}"] = np.array(demos, "S8")
        if change:
            change(file)
    return path


# AgiBot World: steps by task and episode.
EPISODES = {327: {648642: 12, 648649: 9}, 475: {700001: 7}}
CAMERAS = ("head", "hand_left")
SHAPES = {
    "state/joint/position": (14,),
    "state/joint/current_value": (14,),
    "state/effector/position": (2,),
    "state/end/position": (2, 3),
    "state/end/orientation": (2, 4),
    "state/head/position": (2,),
    "action/joint/position": (14,),
    "action/effector/position": (2,),
    "action/end/orientation": (2, 4),
    "action/head/position": (2,),
    "action/robot/velocity": (2,),
}
EMPTY = ("state/joint/effort", "action/end/position", "state/robot/position")


def agibot_arrays(task, episode, length):
    """By name, the arrays of one episode; hands (task 475) have 12 joints, grippers 2 widths."""
    rng = np.random.default_rng(episode)
    hands = {"state/effector/position": (12,), "action/effector/position": (12,)}
    shapes = SHAPES | (hands if task == 475 else {})
    arrays = {name: rng.normal(size=(length, *shape)) for name, shape in shapes.items()}
    arrays |= {name: np.zeros(0) for name in EMPTY}
    groups = ("effector", "end", "head", "joint", "robot", "waist")
    arrays |= {f"action/{group}/index": np.arange(length) for group in groups}
    start = 1_740_109_484_562_531_000
    return arrays | {"timestamp": start + np.arange(length) * 33_333_333}


def agibot_entry(task, episode, length):
    half = length // 2
    config = [
        {"start_frame": 0, "end_frame": half, "action_text": "Pick up the cup", "skill": "Pick"},
        {"start_frame": half, "end_frame": length - 2, "action_text": "Pour", "skill": "Pour"},
    ]
    label = {"action_config": config}
    names = {"task_name": f"Task {task}", "init_scene_text": "A table."}
    return {"episode_id": episode, "task_id": task, **names, "label_info": label}


def pictures(episode, camera, length):
    """Flat colours, which a video keeps but for a little."""
    rng = np.random.default_rng([episode, len(camera)])
    colours = rng.integers(40, 215, (length, 1, 1, 3), np.uint8)
    return np.broadcast_to(colours, (length, 32, 48, 3))


def write_video(path, images):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], "yuv420p"
        stream.bit_rate, stream.time_base = 4_000_000, Fraction(1, 30)
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def h5_of(root, task, episode):
    return root / "proprio_stats" / str(task) / str(episode) / "proprio_stats.h5"


def video_of(root, task, episode, camera):
    folder = root / "observations" / str(task) / str(episode) / "videos"
    return folder / f"{camera}_color.mp4"


def write_h5(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


def write_agibot(root):
    (root / "task_info").mkdir(parents=True)
    for task, episodes in EPISODES.items():
        entries = [agibot_entry(task, e, length) for e, length in reversed(episodes.items())]
        (root / f"task_info/task_{task}.json").write_text(json.dumps(entries))
        for episode, length in episodes.items():
            write_h5(h5_of(root, task, episode), agibot_arrays(task, episode, length))
            for camera in CAMERAS:
                images = pictures(episode, camera, length)
                write_video(video_of(root, task, episode, camera), images)
    return root


def agibot_path(name):
    group, _, rest = name.partition("/")
    prefix = {"state": "steps/observation/states.", "action": "steps/actions."}[group]
    return prefix + rest.replace("/", ".")


def write_agibot_lerobot(root, published):
    """Task 327 as its public converter to LeRobot writes it."""
    names = list(SHAPES)
    features = {
        agibot_path(n).removeprefix("steps/").replace("/", "."): {
            "dtype": "float32",
            "shape": list(SHAPES[n]),
            "names": {"motors": [f"m{i}" for i in range(SHAPES[n][0])]},
        }
        for n in names
    }
    picture = {"dtype": "video", "shape": [32, 48, 3], "names": ["height", "width", "rgb"]}
    features |= {f"observation.images.{camera}": picture for camera in CAMERAS}
    features |= {
        n: {"dtype": "int64", "shape": [1], "names": None}
        for n in ("frame_index", "episode_index", "index", "task_index")
    }
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "a2d",
        "fps": 30,
        "features": features,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
    }
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/tasks.jsonl").write_text(
        json.dumps({"task_index": 0, "task": "Task 327 | A table."}) + "\n"
    )
    lines = []
    for i, (episode, length) in enumerate(EPISODES[327].items()):
        arrays = agibot_arrays(327, episode, length)
        columns = {
            agibot_path(n).removeprefix("steps/").replace("/", "."): arrays[n].astype("f4").tolist()
            for n in names
        }
        counts = {"frame_index": np.arange(length), "index": np.arange(length)}
        constants = {"episode_index": np.full(length, i), "task_index": np.zeros(length, int)}
        times = {"timestamp": (np.arange(length) / 30).astype("f4")}
        table = pa.table(columns | counts | constants | times)
        pq.write_table(table, root / f"data/chunk-000/episode_{i:06d}.parquet")
        lines.append({"episode_index": i, "tasks": ["Task 327 | A table."], "length": length})
        for camera in CAMERAS:
            path = root / f"videos/chunk-000/observation.images.{camera}/episode_{i:06d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video_of(published, 327, episode, camera), path)
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
