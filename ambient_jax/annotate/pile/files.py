"""Writes what a report about a pile found as files: tables, bounds, a config, weights for LeRobot.

Every file is written whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ambient_jax.annotate.pile import results as pile_results
from ambient_jax.annotate.pile.episodes import without_length
from ambient_jax.annotate.pile.results import Finding, Results
from ambient_jax.annotate.pile.worth import interval
from ambient_jax.cli import report
from ambient_jax.data import bounds
from ambient_jax.data.paths import replacing, write_text
from ambient_jax.train import config as train_config
from ambient_jax.train import runs

BOUNDS = "bounds.parquet"
_SECTIONS = ("model", "schedule", "law")


def write(
    folder: pathlib.Path,
    results: Results,
    config: ml_collections.ConfigDict,
    steps: Mapping[str, tuple[str, np.ndarray, np.ndarray]],
) -> None:
    """Writes tables, bounds and config; see ``write_weights`` for LeRobot.

    ``steps`` has for each data set of the pile its fingerprint, and the id of the episode and the
    number in it of every step.
    """
    write_text(folder / "datasets.csv", _csv(dataset_rows(results)))
    write_text(folder / "episodes.csv", _csv(episode_rows(results)))
    parts = [_bounds(f, *steps[f.name]) for f in results.findings]
    bounds.write(folder / BOUNDS, bounds.concatenate(parts))
    write_text(folder / "config.py", config_text(config, results))
    content = json.dumps(report.plain(as_json(results)), indent=1)
    write_text(folder / "results.json", content + "\n")


def _csv(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def dataset_rows(results: Results) -> list[dict[str, Any]]:
    """A row for each data set of the pile: its bounds, gain and worth with their intervals."""
    rows = []
    for f in results.findings:
        mean, (low, high) = interval(f.chosen), pile_results.bounds(f)
        row: dict[str, Any] = {"data_set": f.name, "folder": f.directory, "format": f.format}
        row |= {"episodes": len(f.scores.episode), "steps": int(f.scores.length.sum())}
        row |= {"sigma_min": low, "sigma_max": high, "alpha": f.choice.candidate.alpha}
        row["verdict"] = pile_results.verdict(f)
        for end, value in mean._asdict().items():
            row[f"loss_change_percent_{end}"] = f"{pile_results.percent(value):.3f}"
        for end, value in (f.worth._asdict() if f.worth else {}).items():
            row[f"worth_clean_episodes_{end}"] = f"{value:.2f}"
        row["helps_at_sigma"] = "; ".join(f"{a:.4g} to {b:.4g}" for a, b in f.gain.helps())
        row["harms_at_sigma"] = "; ".join(f"{a:.4g} to {b:.4g}" for a, b in f.gain.harms())
        row["suspect_episodes"] = int(f.scores.suspects().sum())
        rows.append(row)
    return rows


def episode_rows(results: Results) -> list[dict[str, Any]]:
    """A row for each episode of the pile: its scores, with and without its length."""
    rows = []
    for f in results.findings:
        s = f.scores
        plain, z = s.summary, s.standing_out()
        flat = {n: without_length(v, s.length) for n, v in plain.items()}
        suspects = s.suspects()
        for i in range(len(s.episode)):
            row: dict[str, Any] = {"data_set": f.name, "episode": int(s.episode[i])}
            row["steps"] = int(s.length[i])
            for name in plain:
                row[name] = f"{plain[name][i]:.5g}"
                row[f"{name}_without_length"] = f"{flat[name][i]:.5g}"
                row[f"{name}_robust_z"] = f"{z[name][i]:.3f}"
            row["suspect"] = int(suspects[i])
            rows.append(row)
    return rows


def as_json(results: Results) -> dict[str, Any]:
    """All numbers, by data set; NaN and infinite ones are None."""
    sets = {}
    for f in results.findings:
        low, high = f.gain.ends
        sets[f.name] = {
            "folder": f.directory,
            "format": f.format,
            "choice": f.choice,
            "verdict": pile_results.verdict(f),
            "change_of_log_loss": interval(f.chosen)._asdict(),
            "levels": f.gain.levels,
            "log_ratio": {"value": f.gain.ratio, "low": low, "high": high},
            "helps": f.gain.helps(),
            "harms": f.gain.harms(),
            "worth": f.worth._asdict() if f.worth else None,
            "suspects": f.scores.episode[f.scores.suspects()],
            "correlation_with_length": {
                n: {"score": a._asdict(), "without_length": b._asdict()}
                for n, (a, b) in f.correlations.items()
            },
        }
    curve = results.curve
    learning = None
    if curve is not None:
        points = [interval(column)._asdict() for column in curve.losses.T]
        learning = {"episodes": curve.episodes, "log_loss": points}
    whole = None
    if results.everything is not None:
        low, high = results.everything.ends
        whole = {"value": results.everything.ratio, "low": low, "high": high}
    how = {"clean": results.clean, "pile": sets, "everything": whole, "learning_curve": learning}
    return how | {"settings": results.settings}


def _bounds(finding: Finding, fingerprint: str, episode: np.ndarray, step: np.ndarray):
    """The bounds of every step of a data set; episodes that stand out train nowhere."""
    out = np.isin(episode, finding.scores.episode[finding.scores.suspects()])
    low, high = pile_results.bounds(finding)
    ends = np.where(out, 1.0, low), np.where(out, 0.0, high)
    columns = finding.name, fingerprint, episode, step, *ends
    return bounds.for_source(*columns, method="held-out loss", how={"granularity": "dataset"})


def config_text(config: ml_collections.ConfigDict, results: Results) -> str:
    """A config file for training on the clean data and on what of the pile helps."""
    lines = [
        '"""Clean data, and of the pile what helps. Made by python -m ambient_jax.annotate."""',
        "",
        "import ml_collections",
        "",
        "from ambient_jax.train import config as train_config",
        "",
        "",
        "def get_config():",
        "    config = train_config.default()",
    ]
    splits = {name: source.split for name, source in config.data.sources.items()}
    part = {n: "" if split == "train" else f", split={split!r}" for n, split in splits.items()}
    for name, (path, *_) in results.clean.items():
        source = f"train_config.source({path!r}, 'clean'{part[name]})"
        lines.append(f"    config.data.sources[{name!r}] = {source}")
    used = [f for f in results.findings if not f.choice.clean_only]
    if len(used) > 1:  # bands need a law of their own
        used = [f for f in used if f.choice.bounds is not None]
    for f in results.findings:
        if f not in used:
            lines.append(f"    # {f.name}, {pile_results.verdict(f)}: not in this mixture.")
            continue
        low, high = f.choice.bounds or (0.0, 1.0)
        ends = f", sigma_min={low!r}, sigma_max={high!r}" if low > 0 else ""
        lines.append(
            f"    config.data.sources[{f.name!r}] = train_config.source("
            f"{f.directory!r}, 'corrupt'{ends}{part[f.name]})"
        )
    if used:
        changes = used[0].choice.changes([])
        law = {n.removeprefix("law."): value for n, value in changes.items()}
        lines.append(f"    config.law = ml_collections.ConfigDict({law!r})")
        if used[0].choice.bounds is not None:
            lines.append("    # The same bounds, but episodes that look broken train nowhere:")
            lines.append(f"    # config.data.bounds = {BOUNDS!r}")
    lines += _differences(config)
    return "\n".join([*lines, "    return config", ""])


def _differences(config):
    """Lines that set the fields in which a config differs from the default one."""
    default, lines = train_config.default(), []
    for name in ("model", "schedule"):
        text = f"{config[name].to_dict()!r}"
        lines.append(f"    config.{name} = ml_collections.ConfigDict({text})")
    own, base = runs.flat(config.to_dict()), runs.flat(default.to_dict())
    for name, value in own.items():
        section = name.split(".")[0]
        if section in _SECTIONS or name.startswith("data.sources") or base.get(name) == value:
            continue
        value = tuple(value) if isinstance(value, list) else value
        lines.append(f"    config.{name} = {value!r}")
    return lines


def write_weights(
    path: pathlib.Path, finding: Finding, index, episode, frame, keep: np.ndarray
) -> pathlib.Path:
    """Writes the weight of every frame of a data set in LeRobot format, as LeRobot reads it.

    Columns: ``index`` (of the frame in the whole data set), ``episode_index``, ``frame_index`` and
    ``weight`` >= 0, as the weighter "static" takes it (proposed,
    https://github.com/huggingface/lerobot/pull/4222); and ``progress_sparse``, the progress that
    released versions turn into weights (RA-BC, ``lerobot.utils.rabc`` of 0.4.4): it rises by 1 a
    frame in episodes that train, which gives weight 1, and falls by 1 in others, which gives 0.

    Args:
      path: of the file.
      finding: of the data set.
      index, episode, frame: [N] of each frame, as LeRobot numbers them.
      keep: [N] weight of each frame in [0, 1] if its episode trains.
    """
    out = np.isin(episode, finding.scores.episode[finding.scores.suspects()])
    out |= finding.choice.clean_only
    table = pa.table(
        {
            "index": pa.array(index, pa.int64()),
            "episode_index": pa.array(episode, pa.int64()),
            "frame_index": pa.array(frame, pa.int64()),
            "weight": pa.array(np.where(out, 0, keep), pa.float32()),
            "progress_sparse": pa.array(np.where(out, -1.0, 1.0) * frame, pa.float32()),
        }
    ).sort_by("index")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        pq.write_table(table, file)
    return path
