"""LeRobot v2.1 folders, written with pyarrow, Pillow and PyAV alone."""

import io
import json

import av
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

HZ = 10
SIZE = (48, 64)  # height and width of pictures
NAMES = ["shoulder", "elbow", "grip"]


def episodes(seed=0, lengths=(20, 35, 30)):
    """[(state, action)] of smooth motions, [T, 3] float32 each; no step equals the one before."""
    rng = np.random.default_rng(seed)
    made = []
    for length in lengths:
        t = np.arange(length)[:, None] / HZ
        path = np.sin(t * rng.uniform(0.5, 2, 3) + rng.uniform(0, 6, 3)) + 0.01 * t
        made.append((path.astype(np.float32), (path + 0.02).astype(np.float32)))
    return made


def picture(episode, step):
    """Pixels that tell the episode and the step, [h, w, 3] uint8."""
    pixels = np.full((*SIZE, 3), (40 + 60 * episode % 200, 90, 5 * step % 250), np.uint8)
    pixels[8:20, (3 * step) % 50 : (3 * step) % 50 + 10] = 255
    return pixels


def encoded(pixels):
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def write(
    folder,
    data,
    task=lambda episode: f"task {episode % 2}",
    pictures="",
    stated=None,
    shown=picture,
):
    """Writes a folder of episodes [(state, action)] and returns it as a string.

    ``pictures`` is "" for none, "image" or "video"; ``stated`` is the content of meta/stats.json.
    """
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    number = {"dtype": "float32", "shape": [3], "names": NAMES}
    features = {"observation.state": number, "action": number}
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    if pictures:
        shape = {"shape": [*SIZE, 3], "names": ["height", "width", "channel"]}
        features["observation.images.front"] = {"dtype": pictures, **shape}
    tasks = sorted({task(i) for i in range(len(data))})
    first = 0
    for i, (state, action) in enumerate(data):
        length = len(state)
        table = {
            "observation.state": list(state),
            "action": list(action),
            "timestamp": (np.arange(length) / HZ).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, i),
            "index": first + np.arange(length),
            "task_index": np.full(length, tasks.index(task(i))),
        }
        frames = [shown(i, step) for step in range(length)] if pictures else []
        if pictures == "image":
            table["observation.images.front"] = [
                {"bytes": encoded(frame), "path": None} for frame in frames
            ]
        if pictures == "video":
            video = folder / f"videos/chunk-000/observation.images.front/episode_{i:06d}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            write_video(video, frames)
        pq.write_table(pa.table(table), folder / f"data/chunk-000/episode_{i:06d}.parquet")
        first += length
    info = {
        "codebase_version": "v2.1",
        "fps": HZ,
        "total_episodes": len(data),
        "total_frames": first,
        "chunks_size": 1000,
        "splits": {"train": f"0:{len(data)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (folder / "meta/info.json").write_text(json.dumps(info))
    rows = [
        {"episode_index": i, "length": len(s), "tasks": [task(i)]} for i, (s, _) in enumerate(data)
    ]
    (folder / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [{"task_index": i, "task": text} for i, text in enumerate(tasks)]
    (folder / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    if stated is not None:
        (folder / "meta/stats.json").write_text(json.dumps(stated))
    return str(folder)


def write_video(path, frames):
    """An h264 video in which equal frames stay equal."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=HZ)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"crf": "18", "g": "5", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def statistics(data):
    """Content of meta/stats.json that is right."""
    out = {}
    for name, i in (("observation.state", 0), ("action", 1)):
        rows = np.concatenate([episode[i] for episode in data]).astype(np.float64)
        moments = {n: getattr(rows, n)(0).tolist() for n in ("min", "max", "mean", "std")}
        out[name] = moments | {"count": [len(rows)]}
    return out
