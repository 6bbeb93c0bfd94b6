"""The task of the debug variant: small data sets with the features of all in the registry."""

import pathlib

import jax
import ml_collections
import tqdm

from ambient_jax import mixing
from ambient_jax.cli import report
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.open_x import fixtures, registry
from ambient_jax.train import config as config_lib
from ambient_jax.train import metrics

COLUMNS = ("source", "role", "episodes", "steps", "Hz", "rows drawn", "loss", "doubts")


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the data sets that are not there yet, array_record and TFRecord in turn."""
    if jax.process_index():
        return
    root = pathlib.Path(expanded(config.data.root))
    formats = ("array_record", "tfrecord")
    sources = [(name, s.open_x) for name, s in config.data.sources.items() if s.open_x]
    for i, (name, row) in enumerate(tqdm.tqdm(sources, desc="fixtures", unit="data set")):
        if not (root / config.data.sources[name].path).exists():
            fixtures.write_fixture(root, row, lengths=(6, 5, 8), file_format=formats[i % 2])


def evaluate(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Writes ``<workdir>/report`` with a table of the sources: rows drawn and loss."""
    if jax.process_index():
        return
    mixture = mixtures.open_mixture(config.data, config_lib.build(mixing, config.law))
    history = metrics.read(pathlib.Path(expanded(workdir)) / "metrics.jsonl")
    rows, results = [], {}
    for name, clean in zip(mixture.names, mixture.sources.clean, strict=True):
        row = registry.get(config.data.sources[name].open_x)
        trained, total, last = 0.0, 0.0, 0
        for entry in history:
            share = entry.get(f"share_source/{name}", 0.0)
            count = share * entry["admitted"] * (entry["step"] - last)
            last = entry["step"]
            total += count * entry.get(f"loss_source/{name}", 0.0)
            trained += count
        statistics = mixture.statistics[name]
        loss = total / trained if trained else float("nan")
        results[name] = {"drawn": trained, "loss": loss, "steps": statistics.num_steps}
        cells = [len(statistics.lengths), statistics.num_steps, row.hz or "?"]
        cells += [f"{trained:.0f}", f"{loss:.3f}", "yes" if row.doubts else ""]
        rows.append([name, "clean" if clean else "corrupt", *map(str, cells)])
    caption = (
        f"{len(rows)} data sets of random values with real features: nothing is to be learned. "
        "Rows that training drew of each (admitted at their noise level), and their mean loss."
    )
    print(report.write(pathlib.Path(expanded(workdir)) / "report", COLUMNS, rows, caption, results))
