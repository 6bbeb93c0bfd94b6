"""Opens the sources of a config's data section and checks them; an error is one clear line."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import _checks, _names, mixing, schedules
from ambient_jax.data import bounds as bounds_file
from ambient_jax.data import chunk, device, normalizer, section
from ambient_jax.data.files import first_line
from ambient_jax.data.groups import Groups, cut
from ambient_jax.data.paths import below
from ambient_jax.data.source import FORMATS, Episode, Format, Source, Transform, formats
from ambient_jax.data.statistics import SourceStatistics, compute, disagreement
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer
from ambient_jax.transforms.steps import IS_CLEAN, Mask, Role, Shapes


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """K sources, opened, measured and checked.

    Attributes:
      names: names of the sources; a batch's ``source`` indexes them.
      datasets, statistics: sources and their statistics, by name.
      chain: transforms from data units to a network's inputs.
      sources: weight (number of chunks times the config's weight), bounds and roles.
      groups: groups that a law draws from, see ``groups``.
      config: the data section.
      bounds: by name, the tables that replace the bounds in ``sources``.
      format: format of the sources.
    """

    names: tuple[str, ...]
    datasets: dict[str, Source]
    statistics: dict[str, SourceStatistics]
    chain: Chain
    sources: mixing.Sources
    groups: Groups
    config: ml_collections.ConfigDict
    bounds: Mapping[str, bounds_file.BoundsTable]
    format: Format

    @property
    def normalizer(self) -> Normalizer:
        return self.chain.normalizer

    def with_normalizer(self, maps: Normalizer) -> Mixture:
        """Returns the mixture with other maps, such as those of a resumed run."""
        return dataclasses.replace(self, chain=dataclasses.replace(self.chain, normalizer=maps))

    @property
    def chunks(self) -> np.ndarray:
        """Number of chunks (steps) of each source, [K] int64."""
        return np.asarray([self.statistics[n].num_steps for n in self.names])

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hash of each source's data, and of its steps' bounds, by name."""
        marks = {name: source.fingerprint for name, source in self.datasets.items()}
        return marks | {n: f"{marks[n]}/{file.digest(n)}" for n, file in self.bounds.items()}

    @property
    def action_dim(self) -> int:
        return self.chain.action_dim

    @property
    def observation_shapes(self) -> Shapes:
        """Shape of each observation of one row in a batch, by name."""
        return self.chain.inputs(self.config.history)

    @functools.cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """[K, d] by name, see ``device.with_constants``."""
        return self.chain.constants()

    @property
    def masks(self) -> dict[str, Mapping[str, np.ndarray]]:
        """``Source.masks`` by source."""
        return {name: source.masks for name, source in self.datasets.items()}

    @property
    def problems(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        """Accepted problems by source, see ``SourceStatistics.problems``."""
        return {n: problems_of(s, self.statistics[n]) for n, s in self.datasets.items()}

    @functools.cached_property
    def rests(self) -> np.ndarray | None:
        """Displacements at rest, [K, D] in data units, NaN elsewhere; None: actions repeat."""
        if self.config.padding != "hold":
            return None
        rests = np.stack([self.datasets[n].rest(self.action_dim) for n in self.names])
        return None if np.isnan(rests).all() else rests

    def read(self, k: int, index: int, episode: Episode) -> dict[str, np.ndarray]:
        """Returns normalised fields of episode ``index`` of source k; ``chunk.STILL`` if needed."""
        unit = self.chain.normalise(self.datasets[self.names[k]].read(index, episode), k)
        if self.rests is not None:
            rest = {chunk.ACTION: np.nan_to_num(self.rests[k])}
            rest = self.chain.normalise(rest, k)[chunk.ACTION]
            unit[chunk.STILL] = chunk.standing_still(unit[chunk.ACTION], self.rests[k], rest)
        return unit

    def read_all(self, k: int, index: int, episode: Episode) -> dict[str, np.ndarray]:
        """Returns the fields of ``read`` and those that only a stream has (``Source.extras``)."""
        return self.read(k, index, episode) | self.datasets[self.names[k]].extras(episode)

    def sampler(
        self, law: mixing.Law, schedule: schedules.Schedule
    ) -> Callable[..., dict[str, Any]]:
        """Returns ``sampler(data, key, step, rows)``: ``device.sample_batch`` as configured."""
        names = ("history", "horizon", "order", "padding")
        options = {name: self.config[name] for name in names}
        return functools.partial(device.sample_batch, law=law, schedule=schedule, **options)


def open_mixture(
    config: ml_collections.ConfigDict,
    law: mixing.Law,
    *,
    transforms: Mapping[str, Transform] | None = None,
    cache: str | os.PathLike[str] | None = None,
    observed: bool = True,
) -> Mixture:
    """Opens and checks the sources, and computes their statistics (or reads them back).

    Args:
      config: the data section of ``train.config.default()``.
      law: P(source | sigma), which must train every noise level.
      transforms: functions from episode to episode, by source, applied first.
      cache: folder of cached statistics, see ``statistics.compute``.
      observed: False if actions suffice, so that a format may have nothing to observe.

    Raises:
      FileNotFoundError: there is no data set at a path.
      ValueError: any other problem, with source and field, or episode and step.
    """
    transforms = dict(transforms or {})
    fields = section.sources(config)
    forms = _check(config, fields)
    for name in transforms:
        _checks.one_of("source of a transform", name, fields)
    for form in dict.fromkeys(forms.values()):
        form.check_placement(config, observed)
    # Check before reading data; bounds of a file are checked when its rows are joined.
    weighted_sources(config, law)
    files = _bounds_files(config, fields)
    datasets, measured = {}, {}
    for name, section_of_source in fields.items():
        try:
            path = below(config.root, section_of_source["path"])
            source = forms[name].open(name, path, section_of_source, transforms.get(name))
            datasets[name], measured[name] = source, compute(source, cache=cache)
        except (ValueError, FileNotFoundError) as error:
            where = "" if str(error).startswith("source ") else f"source {name!r}: "
            raise type(error)(f"{where}{error}") from error
        _log_problems(name, problems_of(source, measured[name]))
    _check_agreement(measured, config.horizon)
    form = next(iter(forms.values()))
    if missing := missing_delta(config, forms):
        logging.warning("%s; until then the last action is repeated, even a displacement", missing)
    masks = {name: source.masks for name, source in datasets.items()}
    unit, outliers = config.normalization, config.outliers
    for name, moments in measured.items():
        normalizer.log_outliers(name, moments, unit, outliers, masks[name])
    robots = {name: values["group"] for name, values in fields.items()}
    options: dict[str, Any] = dict(groups=robots, masks=masks, outliers=outliers)
    options["least_range"] = config.least_range
    maps = normalizer.make_normalizer(measured, unit, config.normalize_per, **options)
    names, sources = tuple(fields), _weighted(fields, measured)
    groups = cut(names, sources, datasets, measured, files)
    if files:
        mixing.check_law(law, groups.sources, tuple(names[k] for k in groups.owner))
    chain = Chain(maps, (*_steps(form, masks), *_roles(config, fields)))
    for source in datasets.values():
        source.rest(chain.action_dim)  # refuses displacements that the action does not have
    return Mixture(names, datasets, measured, chain, sources, groups, config, files, form)


def chain_of(
    config: ml_collections.ConfigDict, maps: Normalizer, masks: Mapping[str, Mapping[str, Any]]
) -> Chain:
    """Returns the chain of a data section from its maps and the masks of its sources."""
    return Chain(maps, _steps(format_of(config), masks))


def _roles(config, fields):
    """Returns the step that tells the network which data are clean, if the config observes it."""
    if IS_CLEAN not in config.observation:
        return ()
    return (Role(tuple(fields), tuple(values["role"] == "clean" for values in fields.values())),)


def _steps(form, masks):
    if not form.widths:
        return form.steps
    fields = {f: np.stack([np.asarray(m[f], bool) for m in masks.values()]) for f in form.widths}
    return (Mask(fields, tuple(masks)), *form.steps)


def open_source(
    config: ml_collections.ConfigDict, name: str, *, root: str = "", **changes: Any
) -> Source:
    """Opens one source of a data section, such as for evaluation; reads only metadata.

    Its path is relative to ``root``, by default the config's; ``changes`` replace fields of the
    source, such as ``split``. Raises the errors of ``open_mixture``.
    """
    fields = section.sources(config)
    _checks.one_of("source", name, fields)
    values = fields[name] | changes
    form, path = formats(config, fields)[name], below(root or config.root, values["path"])
    return form.open(name, path, values)


def check(config: ml_collections.ConfigDict) -> Shapes:
    """Checks a section; returns shapes of a row's observations, if they are known without data.

    Raises ValueError for an impossible section. A template may lack sources or paths.
    """
    fields = section.sources(config, complete=False) if config.sources else {}
    forms = _check(config, fields)
    if not forms:
        return {}
    chain = outline(next(iter(forms.values())))
    return Chain(chain.normalizer, (*chain.steps, *_roles(config, fields))).inputs(config.history)


def _check(config, fields) -> dict[str, Format]:
    """Checks the options of the data section and returns the format of each source."""
    section.check_options(config)
    for name in FORMATS.keys() & config.keys():
        _names.resolve("format", name, FORMATS)(config)  # checks its section, even if unused
    forms = formats(config, fields) if fields else {}
    for form in dict.fromkeys(forms.values()):
        form.check(config)
    return forms


def format_of(config: ml_collections.ConfigDict) -> Format:
    """Returns the format of a data section's sources."""
    return next(iter(formats(config, section.sources(config, complete=False)).values()))


def outline(form: Format) -> Chain:
    """Returns a chain of the format's shapes without data; its maps are the identity."""
    ones = {field: np.ones(width) for field, width in form.widths.items()}
    maps = Normalizer("none", {n: 0 * v for n, v in ones.items()}, ones)
    masks = {n: v.astype(bool) for n, v in ones.items()}
    return Chain(maps, (Mask(masks), *form.steps) if masks else form.steps)


def missing_delta(
    config: ml_collections.ConfigDict, forms: Mapping[str, Format] | None = None
) -> str:
    """Returns the first ``Format.missing_delta`` of the sources' formats that is not empty."""
    forms = forms or formats(config, section.sources(config, complete=False))
    return next(filter(None, (form.missing_delta(config) for form in forms.values())), "")


def weighted_sources(
    config: ml_collections.ConfigDict,
    law: mixing.Law,
    measured: Mapping[str, SourceStatistics] | None = None,
) -> mixing.Sources:
    """Returns weights, bounds and roles of a section's sources; unmeasured sources have one step.

    Raises ValueError as ``section.sources`` does, and for levels that the law cannot train.
    """
    fields = section.sources(config)
    sources = _weighted(fields, measured)
    mixing.check_law(law, sources, tuple(fields))
    return sources


def _weighted(fields, measured):
    return mixing.make_sources(
        [
            (measured[n].num_steps if measured else 1) * values["weight"]
            for n, values in fields.items()
        ],
        [values["role"] == "clean" for values in fields.values()],
        [values["sigma_min"] for values in fields.values()],
        [values["sigma_max"] for values in fields.values()],
    )


def _bounds_files(config, fields):
    """Reads and checks the bounds file of each source that has one."""
    paths = {n: values["bounds"] for n, values in fields.items() if values["bounds"]}
    for name in paths:
        low, high = (config.sources[name].get(field) for field in ("sigma_min", "sigma_max"))
        if low or high is not None:
            logging.warning(
                "config.data.bounds takes the place of sigma_min %s and sigma_max %s of source %r",
                *(low, high, name),
            )
    tables = {path: bounds_file.read(path) for path in set(paths.values())}
    for name, path in paths.items():
        bounds_file.check(tables[path], name)
    return {n: tables[path] for n, path in paths.items()}


def problems_of(source: Source, measured: SourceStatistics) -> dict[str, Mapping[str, Any]]:
    """Returns the accepted problems of a source, see ``SourceStatistics.problems``: those of its
    episodes, of the data set as a whole, and of the statistics that it states."""
    whole = {"episodes": len(source), "skipped": 0}
    found = [*source.notes]
    try:
        text = disagreement(measured, source.stated())
    except (ValueError, OSError, TypeError, KeyError, AttributeError) as error:
        text = f"those that the data set states cannot be read ({first_line(error)})"
    if text:
        found.append(("statistics", text))
    notes = {kind: whole | {"examples": [[None, text]]} for kind, text in found}
    return notes | dict(measured.problems)


def _log_problems(name, problems):
    for kind, problem in problems.items():
        first = problem["examples"][:3]
        texts = [text if i is None else f"episode {i}: {text}" for i, text in first]
        logging.warning(
            "source %r has problems of the kind %r in %d episodes, %d of them left out (%s)",
            *(name, kind, problem["episodes"], problem["skipped"], "; ".join(texts)),
        )


def _check_agreement(measured, horizon):
    (first, reference), *following = measured.items()
    for name, statistics in following:
        for field, moments in reference.fields.items():
            size = statistics.fields[field].mean.size
            if size != moments.mean.size:
                raise ValueError(
                    f"{field} has {moments.mean.size} numbers a step in source {first!r} and "
                    f"{size} in {name!r}: sources must agree"
                )
    longest = {name: int(s.lengths.max()) for name, s in measured.items()}
    if horizon > max(longest.values()):
        listed = ", ".join(f"{name} {length}" for name, length in longest.items())
        raise ValueError(
            f"config.data.horizon is {horizon}, longer than every episode (longest: {listed} "
            "steps): every chunk would be padded"
        )
