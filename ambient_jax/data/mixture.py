"""From the data section of a config to sources ready to train on, or one clear error line."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from ambient_jax import _checks, mixing, schedules
from ambient_jax.data import (
    bounds,
    chunk,
    device,
    hold,
    normalizer,
    options,
    rlds,
    source_config,
    statistics,
)
from ambient_jax.data import groups as units
from ambient_jax.data.paths import below
from ambient_jax.open_x import dataset as open_x


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """K sources, opened, measured and checked.

    Attributes:
      names: of the sources; a batch's ``source`` indexes them.
      datasets, statistics: by name.
      transforms: by name, applied to an episode first; sources without one are left out.
      normalizer: from the statistics.
      sources: weight (number of chunks times the config's weight), bounds and roles.
      config: the data section.
      bounds: by name, of sources whose steps have bounds of their own from a bounds file; their
        entry in ``sources`` says nothing of those.
      form: the common form of the sources; None where they are read as they are.
    """

    names: tuple[str, ...]
    datasets: dict[str, rlds.RldsDataset]
    statistics: dict[str, statistics.SourceStatistics]
    transforms: Mapping[str, statistics.Transform]
    normalizer: normalizer.Normalizer
    sources: mixing.Sources
    config: ml_collections.ConfigDict
    bounds: Mapping[str, bounds.BoundsTable]
    form: open_x.CommonForm | None = None

    @property
    def chunks(self) -> np.ndarray:
        """Number of chunks (steps) of each source, [K] int64."""
        return np.asarray([self.statistics[n].num_steps for n in self.names])

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the data of each source, and of the bounds of its steps, by name."""
        marks = {name: dataset.fingerprint for name, dataset in self.datasets.items()}
        return marks | {n: f"{marks[n]}/{file.digest(n)}" for n, file in self.bounds.items()}

    @functools.cached_property
    def units(self) -> units.Units:
        """What a law draws from: each source, or its steps of one pair of bounds."""
        return units.cut(self)

    @property
    def action_dim(self) -> int:
        """D."""
        return self._dims[chunk.ACTION]

    @property
    def observation_dims(self) -> dict[str, int]:
        """d of each observation, by name."""
        return {
            n.removeprefix(chunk.OBSERVATION): d for n, d in self._dims.items() if n != chunk.ACTION
        }

    @property
    def _dims(self):
        return {n: m.mean.size for n, m in self.statistics[self.names[0]].fields.items()}

    @property
    def observation_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of each observation of one row in a batch, by name."""
        return observation_shapes(self.config, self.form, self.observation_dims)

    @functools.cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """Of each source, [K, d]: see ``device.with_constants``."""
        if self.form is None:
            return {}
        masks = lambda name: np.stack([getattr(self.datasets[n], name) for n in self.names])  # noqa: E731
        found = {"dims": masks("action_mask")}
        if self.form.state_width:
            found["observation/state_mask"] = masks("state_mask").astype(np.float32)
        return found

    @property
    def masks(self) -> dict[str, dict[str, list[bool]]]:
        """Dimensions of "action" and "state" that each source has, by name; {} without a form."""
        return {
            n: {"action": d.action_mask.tolist(), "state": d.state_mask.tolist()}
            for n, d in self.datasets.items()
            if self.form
        }

    def read_all(self, k: int, index: int, episode: rlds.Episode) -> dict[str, np.ndarray]:
        """``read``, and what only a stream carries: of the common form encoded images and texts,
        [L] of bytes each, and quality labels [L]."""
        arrays = self.read(k, index, episode)
        if self.form is None:
            return arrays
        steps = episode["steps"]
        for camera in self.form.cameras:
            arrays[f"{chunk.OBSERVATION}image_{camera}"] = steps[f"image_{camera}"]
        if self.form.instruction_width:
            arrays["instruction"] = steps["instruction"]
        return arrays | {f"quality/{n}": v for n, v in steps["quality"].items()}

    @functools.cached_property
    def rests(self) -> np.ndarray | None:
        """What displacements are at rest, [K, D] in data units, NaN elsewhere: see
        ``hold.standing_still``. None where standing still is to repeat an action."""
        if self.config.padding != "hold":
            return None
        if self.form:
            rests = np.stack([self.datasets[n].rest for n in self.names])
        else:
            rests = np.stack(
                [hold.rest(self.config.get("delta"), self.action_dim)] * len(self.names)
            )
        return None if np.isnan(rests).all() else rests

    def read(self, k: int, index: int, episode: rlds.Episode) -> dict[str, np.ndarray]:
        """Normalised fields of episode ``index`` of source k, see ``chunk.episode_arrays``, and
        ``chunk.STILL`` where padding is "hold" and there are displacements."""
        name = self.names[k]
        arrays = statistics.read(
            episode,
            observation_fields(self.config, self.form),
            "action" if self.form else self.config.action,
            transform=self.transforms.get(name),
            source=name,
            index=index,
        )
        source = k if self.normalizer.sources else None
        scaled = {n: self.normalizer.normalize(n, x, source) for n, x in arrays.items()}
        unit = {n: x.astype(np.float32) for n, x in scaled.items()}
        if self.rests is not None:
            rest = self.rests[k]
            normalised = self.normalizer.normalize(chunk.ACTION, np.nan_to_num(rest), source)
            unit[chunk.STILL] = hold.standing_still(unit[chunk.ACTION], rest, normalised)
        if self.form is None:
            return unit
        # What it lacks is 0 in normalised units, as solvers hold it, whatever fills it.
        masks = had(self.datasets[name])
        masks[chunk.STILL] = masks[chunk.ACTION]
        return {n: np.where(masks[n], x, np.float32(0)) for n, x in unit.items()}

    def sampler(
        self, law: mixing.Law, schedule: schedules.Schedule
    ) -> Callable[..., dict[str, Any]]:
        """``sampler(data, key, step, rows) -> batch``: ``device.sample_batch`` as configured."""
        return functools.partial(
            device.sample_batch,
            law=law,
            schedule=schedule,
            history=self.config.history,
            horizon=self.config.horizon,
            order=self.config.order,
            padding=self.config.padding,
        )


def open_mixture(
    config: ml_collections.ConfigDict,
    law: mixing.Law,
    *,
    transforms: Mapping[str, statistics.Transform] | None = None,
    cache: str | os.PathLike[str] | None = None,
    observed: bool = True,
) -> Mixture:
    """Opens the sources, computes their statistics (or reads them back) and checks all together.

    Args:
      config: the data section of ``train.config.default()``. ``sources`` maps a name to ``path``,
        ``role`` ("clean" or "corrupt") and, optionally, ``split``, ``weight``, ``sigma_min`` and
        ``sigma_max``, or ``bounds``, a bounds file for its steps, and ``last_step``; sources are
        ordered by name.
      law: P(source | sigma), which must train every noise level.
      transforms: by source, RLDS episode to RLDS episode (standardisation).
      cache: of statistics, see ``statistics.compute``.
      observed: False where actions alone will do; a common form may then have nothing to observe.

    Raises:
      FileNotFoundError: no data set at a path.
      ValueError: anything else that cannot work, named by source and field, or by episode and step.
    """
    transforms = dict(transforms or {})
    specs = source_config.read(config)
    options.check(config)
    form = common_form(config)
    for name in transforms:
        _checks.one_of("source of a transform", name, specs)
    _check_options(config, form, observed)
    weighted_sources(config, law)
    files = _bounds_files(config, specs)
    observation = observation_fields(config, form)
    datasets, found = {}, {}
    for name, spec in specs.items():
        try:
            datasets[name] = _open(config, name, spec, form, name in transforms)
            found[name] = statistics.compute(
                datasets[name],
                source=name,
                observation=observation,
                action="action" if form else config.action,
                transform=transforms.get(name),
                cache=cache,
            )
        except (ValueError, FileNotFoundError) as error:
            told = str(error)
            raise type(error)(
                told if told.startswith("source ") else f"source {name!r}: {told}"
            ) from error
        open_x.tell(name, problems_of(datasets[name], found[name]))
    _check_shapes(found)
    _check_lengths(found, config.horizon)
    if form is None:
        hold.rest(config.get("delta"), found[next(iter(specs))].fields[chunk.ACTION].mean.size)
    if told := hold.untold(config):
        logging.warning("%s; until then the last action is repeated, whatever it means", told)
    sources = weighted_sources(config, law, found)
    masks = {n: had(d) for n, d in datasets.items()} if form else None
    for name, measured in found.items():
        of_source = masks and masks[name]
        normalizer.tell_outliers(name, measured, config.normalization, config.outliers, of_source)
    scaling = normalizer.make_normalizer(
        found,
        config.normalization,
        config.normalize_per,
        masks=masks,
        least_range=config.least_range,
        outliers=config.outliers,
    )
    mixture = Mixture(
        tuple(specs), datasets, found, transforms, scaling, sources, config, files, form
    )
    if files:
        cut = mixture.units
        mixing.check_law(law, cut.sources, tuple(mixture.names[k] for k in cut.owner))
    return mixture


def _bounds_files(config, specs):
    """The bounds file of each source that has one, all of whose rows are bounds."""
    paths = {n: s["bounds"] for n, s in specs.items() if s["bounds"]}
    for name in paths:
        own = config.sources[name]
        if own.get("sigma_min") or own.get("sigma_max") is not None:
            logging.warning(
                "config.data.bounds takes the place of sigma_min %s and sigma_max %s of source %r",
                *(own.get("sigma_min"), own.get("sigma_max"), name),
            )
    read = {path: bounds.read(path) for path in set(paths.values())}
    for name, path in paths.items():
        bounds.check(read[path], name)
    return {n: read[path] for n, path in paths.items()}


def _open(config, name, spec, form, transformed):
    path = below(config.root, spec["path"])
    if form:
        return open_x.open_source(
            path, spec["split"], spec["open_x"], form, last_step=spec["last_step"]
        )
    # What a transform reads is its own affair; without one, decode only what is used.
    fields = [f"steps/observation/{n}" for n in config.observation]
    fields = None if transformed else [f"steps/{config.action}", *fields]
    last = spec["last_step"] or "drop"
    return rlds.open_dataset(path, spec["split"], fields or (), keys=fields, last_step=last)


def common_form(config: ml_collections.ConfigDict) -> open_x.CommonForm | None:
    """The common form of a data section; None where its sources are read as they are.

    Raises:
      ValueError: some sources are to be brought to it and some not, or it cannot be.
    """
    plain = [name for name, s in config.sources.items() if not s.get("open_x")]
    if len(plain) == len(config.sources):
        return None
    if plain:
        raise ValueError(
            f"source {plain[0]!r} has no open_x, others have: give it the lines of a spec too "
            "(ambient_jax.open_x.spec), so that all are brought to one form"
        )
    return options.form(config.open_x)


def observation_fields(
    config: ml_collections.ConfigDict, form: open_x.CommonForm | None
) -> tuple[str, ...]:
    """Names of the low-dimensional observations."""
    if form is None:
        return tuple(config.observation)
    return ("state",) if form.state_width else ()


def observation_shapes(
    config: ml_collections.ConfigDict, form: open_x.CommonForm | None, dims: Mapping[str, int]
) -> dict[str, jax.ShapeDtypeStruct]:
    """Of each observation of one row in a batch, by name; needs no data where there is a form."""
    history = config.history
    if form is None:
        return {n: jax.ShapeDtypeStruct((history, d), np.float32) for n, d in dims.items()}
    shapes = {}
    if form.state_width:
        for name in ("state", "state_mask"):
            shapes[name] = jax.ShapeDtypeStruct((history, form.state_width), np.float32)
    for camera in form.cameras:
        size = (history, *form.image_size, 3)
        shapes[f"image_{camera}"] = jax.ShapeDtypeStruct(size, np.uint8)
        shapes[f"image_{camera}_mask"] = jax.ShapeDtypeStruct((history,), np.bool_)
    if form.instruction_width:
        dtype = np.float32 if form.table else np.uint8
        shapes["instruction"] = jax.ShapeDtypeStruct((form.instruction_width,), dtype)
    return shapes


def had(dataset: open_x.OpenXDataset) -> dict[str, np.ndarray]:
    """Which dimensions of each field a source has, [d] bool."""
    return {chunk.ACTION: dataset.action_mask, f"{chunk.OBSERVATION}state": dataset.state_mask}


def problems_of(
    dataset: rlds.RldsDataset | open_x.OpenXDataset, found: statistics.SourceStatistics
) -> dict[str, Mapping[str, Any]]:
    """What is wrong with a source and was accepted, by kind, see ``SourceStatistics.problems``."""
    notes = {
        kind: {"episodes": len(dataset), "skipped": 0, "examples": [[None, told]]}
        for kind, told in getattr(dataset, "notes", ())
    }
    return notes | dict(found.problems)


def weighted_sources(
    config: ml_collections.ConfigDict,
    law: mixing.Law,
    found: Mapping[str, statistics.SourceStatistics] | None = None,
) -> mixing.Sources:
    """Weights, bounds and roles of a data section, checked against the law; see ``open_mixture``.

    Which levels are trained hangs on no number of steps, so it is known before they are (None).
    """
    specs = source_config.read(config)
    sources = mixing.make_sources(
        [(found[n].num_steps if found else 1) * spec["weight"] for n, spec in specs.items()],
        [spec["role"] == "clean" for spec in specs.values()],
        [spec["sigma_min"] for spec in specs.values()],
        [spec["sigma_max"] for spec in specs.values()],
    )
    mixing.check_law(law, sources, tuple(specs))
    return sources


def check(config: ml_collections.ConfigDict) -> open_x.CommonForm | None:
    """The common form; raises ValueError for a data section that no data can suit, and reads none.

    Sources, or their paths, may still be missing, as in a template.
    """
    options.check(config)
    if not config.sources:
        return options.form(config.open_x)
    source_config.read(config, complete=False)
    form = common_form(config)
    hold.check(config, form is not None)
    return form


def _check_options(config, form, observed):
    if form and config.placement == "device" and (form.cameras or form.instruction_width):
        raise ValueError(
            "config.data.placement is 'device' and config.data.open_x has cameras or instructions: "
            "set placement to 'stream', or cameras to () and instruction_bytes to 0"
        )
    seen = form and (form.state_width or form.cameras or form.instruction_width)
    if form and observed and not seen:
        raise ValueError(
            "config.data.open_x has no state, cameras or instructions, expected something to "
            "observe"
        )
    if not form and not config.observation:
        raise ValueError("config.data.observation is empty, expected names under steps/observation")
    hold.check(config, form is not None)


def _check_shapes(found):
    (first, reference), *rest = found.items()
    for name, other in rest:
        for field, moments in reference.fields.items():
            size = other.fields[field].mean.size
            if size != moments.mean.size:
                raise ValueError(
                    f"{field} has {moments.mean.size} numbers a step in source {first!r} and "
                    f"{size} in {name!r}: sources must agree"
                )


def _check_lengths(found, horizon):
    longest = {name: int(s.lengths.max()) for name, s in found.items()}
    if horizon > max(longest.values()):
        told = ", ".join(f"{name} {length}" for name, length in longest.items())
        raise ValueError(
            f"config.data.horizon is {horizon}, longer than every episode (longest: {told} steps): "
            "every chunk would be padded"
        )
