"""The interfaces of a source, which training reads, and of the format that opens it.

``config.data.sources.<name>.format`` is "rlds", fields as they are stored in any format that
``data.storage`` opens (the default), "open_x", the common form (if the source has ``open_x``), or
the ``package.module:Class`` of another ``Format``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import ml_collections
import numpy as np

from ambient_jax import _names
from ambient_jax.data import chunk
from ambient_jax.transforms.steps import Step

FORMATS = {
    "rlds": "ambient_jax.data.rlds_source:RldsFormat",
    "open_x": "ambient_jax.open_x.source:OpenXFormat",
}

Episode = Mapping[str, Any]
Problem = tuple[str, str]  # kind and text
Transform = Callable[[Any], Any]


class Source(Protocol):
    """One source: its episodes, by position and in the order of its files, and their fields.

    A subclass needs ``name``, ``directory``, ``fingerprint``, ``__len__`` and ``__getitem__``; the
    other members have defaults for a data set of one file without conversion.

    Attributes:
      name, directory: for messages.
      observation, action: names of fields under steps/observation, and under steps.
      transform: function applied to an episode before its numbers are read; None for none.
      in_order: whether files are read from front to back, rather than by position.
      last_step: "drop" if a last step with ``is_last`` is dropped.
      masks: by field ("action", "observation/<name>"), [d] bool, dimensions that the source has;
        empty if it has all.
      displacements: [D] bool, dimensions of the action that are displacements; None: unknown.
      bgr: by camera, whether its encoded images have blue first.
      notes: accepted problems of the data set as a whole.
      settings: text of the settings that statistics depend on; part of their cache's key.
    """

    name: str
    directory: str
    observation: tuple[str, ...] = ()
    action: str = chunk.ACTION
    transform: Transform | None = None
    in_order: bool = False
    last_step: str = "keep"
    masks: Mapping[str, np.ndarray] = {}
    displacements: np.ndarray | None = None
    bgr: Mapping[str, bool] = {}
    notes: Sequence[Problem] = ()
    settings: str = ""

    @property
    def fingerprint(self) -> str:
        """Hash of all data that training reads."""
        ...

    def __len__(self) -> int:
        """Number of episodes."""
        ...

    def __getitem__(self, position: int) -> Episode:
        """Returns an episode, ``{"steps": {"observation": {...}, "action": ...}}``."""
        ...

    @property
    def shard_lengths(self) -> Sequence[int]:
        """Episodes of each file, in the order of positions."""
        return [len(self)]

    @property
    def episode_ids(self) -> np.ndarray:
        """Stable id of each episode, [N] int64."""
        return np.arange(len(self))

    def stream(self, shard_index: int, start: int = 0) -> Iterator[tuple[int, Episode]]:
        """Yields the episodes of one file from number ``start`` on, as (id, episode)."""
        first = sum(self.shard_lengths[:shard_index])
        for position in range(first + start, first + self.shard_lengths[shard_index]):
            yield int(self.episode_ids[position]), self[position]

    def examine(self, shard_index: int) -> Iterator[tuple[int, Episode | None, list[Problem]]]:
        """Yields (id, episode, problems) of one file; the episode is None if it is skipped."""
        return ((index, episode, []) for index, episode in self.stream(shard_index))

    def examined(self, position: int) -> tuple[Episode | None, list[Problem]]:
        """Returns the episode at a position (None if it is skipped) and its problems."""
        return self[position], []

    def read(self, index: int, episode: Episode) -> dict[str, np.ndarray]:
        """Returns the numbers of episode ``index`` by field, [L, d] in data units."""
        episode = self.transform(episode) if self.transform else episode
        fields = self.observation, self.action
        return chunk.episode_arrays(episode, *fields, source=self.name, index=index)

    def extras(self, episode: Episode) -> dict[str, np.ndarray]:
        """Returns arrays [L] that only a stream has: "observation/image_<camera>" as encoded
        images, "instruction" as bytes, and "quality/<label>"."""
        return {}

    def extra_bytes(self, episode: Episode) -> int:
        """Returns the bytes of the episode that a stream keeps in memory beside ``read``."""
        return 0

    def rest(self, action_dim: int) -> np.ndarray:
        """Returns the action [D] of a robot that stands still, NaN for positions; see ``chunk``."""
        return chunk.rest((), action_dim)

    def stated(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Returns "min", "max", "mean" and "std" [d] in the data set's files, by field."""
        return {}

    def shard_version(self, shard_index: int) -> str:
        """Returns a text that changes with the data of one file, found without reading them."""
        return self.fingerprint

    def refuse_images(self, problems: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises ValueError if training may not begin with the examined images."""

    def damaged_image(self, problem: str) -> None:
        """Raises ValueError, or logs that the image is masked."""
        raise ValueError(f"{problem}; mend the data")


class Format(Protocol):
    """Opens sources of one format; its constructor checks the options of the data section.

    Attributes:
      widths: by field, the width that all sources are padded to and masked; empty if only the data
        determine it.
      steps: steps of the chain of transforms, after normalisation and masks.
      labels: labels of the batch's "quality".
      workers: threads that decode images, on each host.
      marks: hashes of other files that the batches depend on, by config field.
    """

    widths: Mapping[str, int] = {}
    steps: tuple[Step, ...] = ()
    labels: tuple[str, ...] = ()
    workers: int = 0
    marks: Mapping[str, str] = {}

    def __init__(self, config: ml_collections.ConfigDict): ...

    def open(
        self, name: str, path: str, fields: Mapping[str, Any], transform: Transform | None = None
    ) -> Source:
        """Opens the source ``name`` at a path.

        ``fields`` is its section, see ``section.sources``. ``transform``, from episode to episode,
        is applied first; raises ValueError if the format allows none.
        """
        ...

    def check(self, config: ml_collections.ConfigDict) -> None:
        """Raises ValueError for options of the data section that do not fit the format."""

    def check_placement(self, config: ml_collections.ConfigDict, observed: bool) -> None:
        """Raises ValueError if the placement is wrong or there is nothing to observe."""

    def missing_delta(self, config: ml_collections.ConfigDict) -> str:
        """Returns a line about options that padding "hold" lacks; "" for none."""
        return ""


def size_of(arrays: Mapping[str, Any]) -> int:
    """Bytes of the values that are arrays, the blobs and pictures in arrays of objects included."""
    real = [a for a in arrays.values() if isinstance(a, np.ndarray)]
    whole = lambda x: x.nbytes if isinstance(x, np.ndarray) else len(x)  # noqa: E731
    return sum(sum(map(whole, a)) if a.dtype == object else a.nbytes for a in real)


def formats(
    config: ml_collections.ConfigDict, fields: Mapping[str, Mapping[str, Any]]
) -> dict[str, Format]:
    """Returns the format of each source; sources of one format share an object.

    ``fields`` come from ``section.sources``. Raises ValueError for an unknown format, an impossible
    option of it, or formats whose fields differ.
    """
    names = {n: f["format"] or ("open_x" if f["open_x"] else "rlds") for n, f in fields.items()}
    forms: dict[str, Format] = {}
    for source, name in names.items():
        if name not in forms:
            make = _names.resolve(f"config.data.sources.{source}.format", name, FORMATS)
            forms[name] = make(config)
    (first, form), *following = ((source, forms[name]) for source, name in names.items())
    for source, second in following:
        if _layout(form) != _layout(second):
            plain, wide = (first, source) if second.widths else (source, first)
            raise ValueError(
                f"source {plain!r} has the format {names[plain]!r} and source {wide!r} "
                f"{names[wide]!r}, whose fields differ: bring all to one form, such as 'open_x' "
                "(give each source open_x, a row or the lines of a spec, ambient_jax.open_x.spec)"
            )
    return {source: forms[name] for source, name in names.items()}


def _layout(form):
    return dict(form.widths), [(type(s), s.to_dict()) for s in form.steps], form.labels
