"""Small data sets of LeRobot v2.0, v2.1 and v3.0, written with pyarrow and PyAV alone.

Nothing of the library is used, so that its reader and its writer are tested against other code.
"""

import io
import json
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

HZ = 10
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
STORED = "observation.images.stored"
TASKS = ["pick the cup", "push the block", "öffne die Schublade"]
ENCODERS = {  # codec: (encoder, pixels, options)
    "h264": ("libx264", "yuv420p", {"crf": "12", "preset": "ultrafast"}),
    "h265": (
        "libx265",
        "yuv420p",
        {"crf": "12", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    ),
    "av1": ("libsvtav1", "yuv420p", {"crf": "15", "preset": "12"}),
    "mpeg4": ("mpeg4", "yuv420p", {"b": "4000000"}),
    "rgb": ("libx264rgb", "rgb24", {"qp": "0", "preset": "ultrafast"}),
}
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": [3], "names": {"motors": ["a", "b", "c"]}},
    "action": {"dtype": "float64", "shape": [2], "names": ["x", "y"]},
    "observation.grid": {"dtype": "int64", "shape": [2, 3], "names": None},
    "next.reward": {"dtype": "float32", "shape": [1], "names": None},
    "next.done": {"dtype": "bool", "shape": [1], "names": None},
    "note": {"dtype": "string", "shape": [1], "names": None},
    STORED: {"dtype": "image", "shape": [16, 24, 3], "names": ["height", "width", "channel"]},
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}


def picture(episode, step, camera=FRONT, size=(32, 48)):
    """Smooth shades that tell episode, step and camera."""
    height, width = size
    down, right = np.mgrid[:height, :width] / max(size)
    phase = 0.7 * step + 2.1 * episode + len(camera)
    shades = [np.sin(phase + 3 * down), np.cos(phase + 2 * right), np.sin(2 * phase - right - down)]
    return np.round(127 + 100 * np.stack(shades, -1)).astype(np.uint8)


def png(array):
    out = io.BytesIO()
    PIL.Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def rows(episode, length, first):
    """Columns of an episode as lists; its task changes in the middle."""
    rng = np.random.default_rng(episode)
    at = np.arange(length)
    return {
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32).tolist(),
        "action": rng.normal(size=(length, 2)).tolist(),
        "observation.grid": rng.integers(-9, 9, (length, 2, 3)).tolist(),
        "next.reward": rng.random(length).astype(np.float32).tolist(),
        "next.done": (at == length - 1).tolist(),
        "note": [f"note {episode} {i}" for i in at],
        STORED: [{"bytes": png(picture(episode, i, STORED, (16, 24))), "path": None} for i in at],
        "timestamp": (at / HZ).astype(np.float32).tolist(),
        "frame_index": at.tolist(),
        "episode_index": [episode] * length,
        "index": (first + at).tolist(),
        "task_index": [(episode + int(i >= length // 2)) % len(TASKS) for i in at],
    }


SCHEMA = pa.schema(
    [
        ("observation.state", pa.list_(pa.float32(), 3)),
        ("action", pa.list_(pa.float64())),
        ("observation.grid", pa.list_(pa.list_(pa.int64()))),
        ("next.reward", pa.float32()),
        ("next.done", pa.bool_()),
        ("note", pa.string()),
        (STORED, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        ("timestamp", pa.float32()),
        *((n, pa.int64()) for n in ("frame_index", "episode_index", "index", "task_index")),
    ]
)


def write_video(path, pictures, codec="h264", hz=HZ):
    """Writes pictures [N, h, w, 3] as a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder, pixels, options = ENCODERS[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=Fraction(hz), options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        for i, array in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = i, 1 / Fraction(hz)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def info(version, lengths, cameras, **more):
    field = {"dtype": "video", "shape": [32, 48, 3], "names": ["height", "width", "channels"]}
    return {
        "codebase_version": version,
        "robot_type": "toy",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": len(TASKS),
        "chunks_size": 1000,
        "fps": HZ,
        "splits": {"train": f"0:{len(lengths)}"},
        "features": FEATURES | dict.fromkeys(cameras, field),
        **more,
    }


def _tasks_of(columns):
    return [TASKS[i] for i in dict.fromkeys(columns["task_index"])]


def write_v2(root, lengths=(7, 1, 5), version="v2.1", cameras=(FRONT, WRIST), codecs=None):
    """One table and one video of each camera an episode; ``codecs`` by camera."""
    listed, stats, first = [], [], 0
    for number, length in enumerate(lengths):
        columns = rows(number, length, first)
        first += length
        path = root / f"data/chunk-000/episode_{number:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns, SCHEMA), path)
        for camera in cameras:
            path = root / f"videos/chunk-000/{camera}/episode_{number:06d}.mp4"
            codec = (codecs or {}).get(camera, "h264")
            write_video(path, [picture(number, i, camera) for i in range(length)], codec)
        listed.append({"episode_index": number, "tasks": _tasks_of(columns), "length": length})
        state = np.array(columns["observation.state"])
        moments = {n: getattr(state, n)(0).tolist() for n in ("min", "max", "mean", "std")}
        moments = {"observation.state": {**moments, "count": [length]}}
        stats.append({"episode_index": number, "stats": moments})
    write_lines(root / "meta/episodes.jsonl", listed)
    tasks = [{"task_index": i, "task": t} for i, t in enumerate(TASKS)]
    write_lines(root / "meta/tasks.jsonl", tasks)
    if version == "v2.1":
        write_lines(root / "meta/episodes_stats.jsonl", stats)
    chunk, file = "chunk-{episode_chunk:03d}", "episode_{episode_index:06d}"
    places = {
        "data_path": f"data/{chunk}/{file}.parquet",
        "video_path": f"videos/{chunk}/{{video_key}}/{file}.mp4",
    }
    write_json(root / "meta/info.json", info(version, lengths, cameras, **places))
    return root


def write_v3(root, lengths=(7, 1, 5, 4), tables=((0, 1, 2), (3,)), videos=None, codecs=None):
    """Several episodes a file; ``videos`` are the episodes of each file by camera, ``codecs`` the
    codec of each. By default no camera's files hold the same episodes as the tables."""
    videos = videos or {FRONT: ((0,), (1, 2, 3)), WRIST: ((0, 1), (2, 3))}
    firsts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    columns = [rows(i, n, firsts[i]) for i, n in enumerate(lengths)]
    listed = [
        {
            "episode_index": i,
            "tasks": _tasks_of(columns[i]),
            "length": n,
            "dataset_from_index": firsts[i],
            "dataset_to_index": firsts[i + 1],
            "stats/observation.state/mean": np.mean(columns[i]["observation.state"], 0).tolist(),
        }
        for i, n in enumerate(lengths)
    ]
    for file, episodes in enumerate(tables):
        path = root / f"data/chunk-000/file-{file:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = [pa.table(columns[i], SCHEMA) for i in episodes]
        pq.write_table(pa.concat_tables(parts), path, row_group_size=4)
        for i in episodes:
            listed[i] |= {"data/chunk_index": 0, "data/file_index": file}
    for camera, numbers in videos.items():
        for file, episodes in enumerate(numbers):
            start, pictures = 0, []
            for i in episodes:
                pictures += [picture(i, step, camera) for step in range(lengths[i])]
                places = {
                    "chunk_index": 0,
                    "file_index": file,
                    "from_timestamp": start / HZ,
                    "to_timestamp": len(pictures) / HZ,
                }
                listed[i] |= {f"videos/{camera}/{n}": v for n, v in places.items()}
                start = len(pictures)
            codec = (codecs or {}).get(camera, ("h264",) * (file + 1))[file]
            write_video(root / f"videos/{camera}/chunk-000/file-{file:03d}.mp4", pictures, codec)
    write_listing(root, listed)
    tasks = pa.table({"task_index": range(len(TASKS)), "__index_level_0__": TASKS})
    pq.write_table(tasks, root / "meta/tasks.parquet")
    places = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    write_json(root / "meta/info.json", info("v3.0", lengths, tuple(videos), **places))
    state = np.concatenate([np.array(c["observation.state"]) for c in columns])
    moments = {n: getattr(state, n)(0).tolist() for n in ("min", "max", "mean", "std")}
    write_json(root / "meta/stats.json", {"observation.state": moments})
    return root


def write_listing(root, listed):
    """The table of v3's episodes."""
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(listed), path)


def unpng(blob):
    return np.asarray(PIL.Image.open(io.BytesIO(blob)))
