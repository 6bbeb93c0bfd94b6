"""Times the commands of docs/start.md on two folders that it makes: python -m docs.ten_minutes

It copies the repository to a temporary folder, gives the commands there in a new environment, word
for word but for GOOD and OTHER, and writes their times into the page. GOOD is RLDS, 30 episodes of
8 s at 10 Hz; OTHER is LeRobot v3.0, 100 episodes with jitter. States and actions have 7 numbers.
"""

import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs/start.md"
COPIED = ("ambient_jax", "setup.py", "pyproject.toml", "README.md", "LICENSE")
HEALTH = "http://127.0.0.1:8000/healthz"
WIDTH, STEPS = 7, 80
_TIMES = re.compile(r"(<!-- times -->\n).*?(<!-- end -->)", re.DOTALL)


def commands(page: str) -> dict[str, str]:
    """Returns the page's commands by the name of their step, such as "Install"."""
    steps = re.findall(r"^\*\*\d\. ([^*]+?)\.?\*\*.*?```bash\n(.*?)\n```", page, re.M | re.S)
    return dict(steps)


def write_folders(root: pathlib.Path, good: int = 30, other: int = 100) -> dict[str, str]:
    """Writes both folders; returns their paths by the words that stand for them."""
    from ambient_jax.data import storage, write
    from ambient_jax.data.storage import lerobot_write

    vector = np.zeros(WIDTH, np.float32)
    features = write.rlds_features({"state": vector}, vector)
    paths = {}
    for seed, (name, count, jitter) in enumerate((("good", good, 0.0), ("play", other, 0.05))):
        rng = np.random.default_rng(seed)
        episodes = [_episode(rng, jitter) for _ in range(count)]
        about = dict(name=name, version="1.0.0", features=features)
        paths[name] = write.write_dataset(root, episodes=episodes, **about)
    play = storage.open_dataset(paths["play"], "train", last_step="keep")
    lerobot_write.write_lerobot(root / "other", play, hz=10)
    return {"GOOD": str(paths["good"]), "OTHER": str(root / "other")}


def _episode(rng, jitter):
    s = np.linspace(0, 1, STEPS + 1)[:, None]
    start, goal = rng.uniform(-1, 1, (2, WIDTH))
    way = start + (goal - start) * (10 * s**3 - 15 * s**4 + 6 * s**5)
    way = (way + jitter * rng.normal(size=way.shape)).astype(np.float32)
    last = np.arange(STEPS) == STEPS - 1
    flags = {"is_first": np.arange(STEPS) == 0, "is_last": last, "is_terminal": last}
    numbers = {name: np.zeros(STEPS, np.float32) for name in ("reward", "discount")}
    return {"steps": {"observation": {"state": way[:-1]}, "action": way[1:], **flags, **numbers}}


def measure(
    folder: pathlib.Path, steps: Mapping[str, str], words: Mapping[str, str], before: str = ""
) -> dict[str, tuple[float, float]]:
    """Gives the commands in a folder, in order; returns the time and processor time of each, s.

    The time of a server is the time until it answers, and then stops.

    Args:
      folder: where they run.
      steps: commands by name.
      words: what stands for each word of a command.
      before: put in front of every command but the first.

    Raises:
      RuntimeError: one failed; the message has the end of its output.
    """
    times: dict[str, tuple[float, float]] = {}
    for name, command in steps.items():
        for word, meaning in words.items():
            command = re.sub(rf"\b{word}\b", meaning, command)
        command = f"{before if times else ''}{command}"
        begin, used = time.monotonic(), _processor()
        with open(folder / "output.txt", "w+") as output:
            shell = ["bash", "-euo", "pipefail", "-c", command]
            streams = dict(stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            process = subprocess.Popen(shell, cwd=folder, **streams)
            served = " ambient_jax.serve " in command
            code = _until_it_answers(process) if served else process.wait()
            times[name] = time.monotonic() - begin, _processor() - used
            output.seek(0)
            if code:
                raise RuntimeError(f"{name} ended with {code}:\n{output.read()[-3000:]}")
    return times


def _processor() -> float:
    """Returns the processor time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _until_it_answers(process):
    """Waits for the server, then stops it. Returns the code with which it ended by itself, or 0."""
    try:
        while process.poll() is None:
            try:
                with urllib.request.urlopen(HEALTH, timeout=1):
                    return 0
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        return process.returncode or 1
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)


def table(times: Mapping[str, tuple[float, float]]) -> str:
    """Returns the times as a table in Markdown."""
    rows = ["| step | seconds | of the processor |", "|---|---|---|"]
    every = {**times, "together": tuple(map(sum, zip(*times.values(), strict=True)))}
    rows += [f"| {name} | {wall:.0f} | {used:.0f} |" for name, (wall, used) in every.items()]
    return "\n".join([*rows, ""])


def main() -> None:
    """Measures, prints the table and writes it into the page."""
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for each in COPIED:
            source = ROOT / each
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / each)
        words = write_folders(folder / "data")
        times = measure(folder, commands(page), words, before=". .venv/bin/activate && ")
    print(made := table(times))
    PAGE.write_text(_TIMES.sub(lambda m: f"{m[1]}{made}{m[2]}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
