"""The command ``python -m ambient_jax.data``: prints a page about a data set and writes it."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import os
import re
import sys
from collections.abc import Callable, Sequence

import tqdm

from ambient_jax.data import storage
from ambient_jax.data.dataset import Dataset
from ambient_jax.data.features import leaves
from ambient_jax.data.files import first_line
from ambient_jax.data.look import page, samples
from ambient_jax.data.look.summary import Problem, Summary, summarise
from ambient_jax.data.paths import expanded, write_text

NONE = "none"


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(
        prog="python -m ambient_jax.data",
        description="Prints a page about a data set; writes it as HTML with pictures and plots.",
    )
    made.add_argument("path", help="folder of the data set, in any format")
    made.add_argument("--split", default="train", help="such as train or 'train[:100]'")
    made.add_argument(
        "--html", default="", metavar="FILE", help="default NAME.html; 'none': no file"
    )
    made.add_argument("--episodes", type=int, default=3, help="shown with pictures and plots")
    made.add_argument("--hz", type=float, help="control rate, where the data do not say it")
    return made


def look(arguments: Sequence[str], rate: Callable[[str], float | None] = lambda name: None) -> None:
    """Runs the command.

    Args:
      arguments: of the command line.
      rate: control rate by the name of a data set that does not say its own.

    Raises:
      ValueError, OSError: no data set there, or the HTML file cannot be written.
    """
    given = parser().parse_args(arguments)
    if given.episodes < 0:
        raise ValueError(f"--episodes is {given.episodes}, expected at least 0")
    if given.hz is not None and not 0 < given.hz < 1e5:
        raise ValueError(f"--hz is {given.hz}, expected a rate above 0")
    dataset = opened(given.path, given.split)
    file = given.html or f"{re.sub(r'[^A-Za-z0-9._-]+', '_', dataset.name) or 'data'}.html"
    if given.html != NONE and os.path.isdir(expanded(file)):
        raise ValueError(f"--html is the folder {file}, expected a file to write")
    progress = functools.partial(tqdm.tqdm, desc=dataset.name, unit="episode", disable=None)
    summary = summarise(dataset, given.hz or rate(dataset.name), progress)
    shown = []
    if given.html != NONE:
        shown = read_samples(dataset, summary, given.episodes)
        summary = with_problems(summary, shown)
    print(page.text(summary))
    if given.html != NONE:
        content = page.html(summary, shown).encode(errors="replace").decode()
        write_text(expanded(file), content)
        print(f"\npictures and plots: {file}")


def opened(path: str, split: str) -> Dataset:
    """The data set with encoded pictures, and without fields that cannot be decoded here."""
    dataset = storage.open_dataset(path, split, decode_images=False, allow_missing=True)
    fields = leaves(dataset.features)
    readable = [p for p, leaf in fields.items() if leaf.kind != "other"]
    if len(readable) == len(fields):
        return dataset
    return storage.open_dataset(path, split, keys=readable, decode_images=False, allow_missing=True)


def read_samples(dataset: Dataset, summary: Summary, count: int) -> list[samples.Sample]:
    """Some episodes with pictures and curves."""
    return [samples.read(dataset, summary, at) for at in samples.choose(summary, count)]


def with_problems(summary: Summary, shown: Sequence[samples.Sample]) -> Summary:
    """The summary with the problems that decoding the shown episodes found."""
    rows = {problem.kind: problem for problem in summary.problems}
    for sample in shown:
        for kind, line in sample.problems:
            known = rows.get(kind, Problem(kind, 0, ()))
            if (sample.episode, line) not in known.examples:
                examples = (*known.examples, (sample.episode, line))
                rows[kind] = Problem(kind, known.episodes + 1, examples)
    return dataclasses.replace(summary, problems=tuple(rows.values()))


def run(arguments: Sequence[str], rate: Callable[[str], float | None]) -> None:
    """Like ``look``; bad input ends the program with one line."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may know fewer letters than data have
        sys.stdout.reconfigure(errors="replace")
    try:
        look(arguments, rate)
    except BrokenPipeError:  # of a reader such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {first_line(error)}")
