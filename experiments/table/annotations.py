"""Makes bounds by a classifier for the corrupt source of a table, without rollouts or a sweep."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from ambient_jax.annotate import command
from ambient_jax.cli import report


@dataclasses.dataclass(frozen=True)
class Annotation:
    """The result of an annotation."""

    bounds: str  # folder of its bounds files, one for each granularity
    results: dict[str, Any]  # its results.json, see ``ambient_jax.annotate``; {} without classifier
    source: str  # the corrupt one
    # Sample sizes of Ben-David's bound: episodes, as the chunks of one are not independent.
    n_clean: int
    n_corrupt: int

    @property
    def sigma_min(self) -> float | None:
        """The bound of the whole data set; None if only finer units have one."""
        bound = self.results["sigma_min"].get(f"{self.source}, dataset")
        return bound and bound["mean"]

    def hard_law(self, granularity: str) -> dict[str, Any]:
        """Returns config fields of the ambient law with the bounds of a granularity."""
        file = f"{self.bounds}/{granularity}.parquet"
        return {"law.name": "ambient", f"data.sources.{self.source}.bounds": file}

    def soft_law(self) -> dict[str, Any]:
        """Returns config fields of the soft law by Ben-David's bound."""
        return {
            "law.name": "ben_david",
            "law.n_clean": self.n_clean,
            "law.n_corrupt": self.n_corrupt,
            "law.sigmas": tuple(self.results["levels"]),
            "law.divergences": tuple(self.results["total_variation"][self.source]["value"]),
        }


Annotations = Mapping[str, Annotation]


def run(
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    source: str,
    sizes: tuple[int, int],
    report_only: bool,
) -> Annotation | None:
    """Runs an annotation in its workdir ``folder``, unless it is there; ``report_only`` only reads
    it, None if it is not there. ``sizes`` are ``n_clean`` and ``n_corrupt``."""
    file = folder / "report" / "results.json"
    if not report_only:
        command.by_classifier(config, str(folder))
    elif not file.exists():
        return None
    return Annotation(str(folder / "bounds"), report.read(file), source, *sizes)
