"""What the recorded actions look like: their spectra, and how far the best denoiser looks."""

from typing import Any

import numpy as np

from ambient_jax.analysis import spectrum
from ambient_jax.annotate import locality
from ambient_jax.annotate.evidence import grid
from ambient_jax.cli import report
from experiments.humanoid import data
from experiments.table import cache
from experiments.table.experiment import Table

Spectra = dict[str, tuple[np.ndarray, np.ndarray, spectrum.PowerLaw]]
_WINDOWS = (16, 32, 64)  # frames of a spectrum
_LEVELS = 20
_FIT = 0.25  # cycles a frame; spectra are fitted up to there: above, they show a floor of noise


def scaled(table: Table) -> list[np.ndarray]:
    """Actions [T, d] of each recorded episode, of the joints that move, of unit variance."""
    actions = [m.action for m in data.recorded(table.config.task).motions]
    scale = np.concatenate(actions).std(0)
    return [a[:, scale > 0] / scale[scale > 0] for a in actions]


def spectra(table: Table) -> Spectra:
    """Frequencies in Hz, power spectral density and power law, by the length of windows."""
    hz, actions, found = data.recorded(table.config.task).hz, scaled(table), {}
    for window in _WINDOWS:
        frequency, psd = spectrum.power_spectrum(_chunks(actions, window, window))
        law = spectrum.fit_power_law(frequency, psd, high=_FIT)
        found[f"{window} frames"] = frequency * hz, psd, law
    return found


def receptive_field(table: Table) -> dict[str, np.ndarray]:
    """How far the best denoiser of a single joint's chunk looks, kept in the workdir.

    Of recorded episodes; those that are held out measure it. Returns the noise levels "sigma" [L],
    "width" [W] in actions, "loss" [L, W], the "prior" loss and the "field" [L] in actions.
    """
    config, source = table.config, data.recorded(table.config.task)
    about: dict[str, Any] = {
        "data": source.fingerprint,
        "horizon": config.data.horizon,
        "options": report.plain(config.task.field.to_dict()),
        "split": [config.task[name] for name in ("clean", "held_out", "data_seed")],
    }
    return cache.kept(table.workdir / "receptive_field.npz", about, lambda: _field(table))


def _field(table):
    config, actions = table.config, scaled(table)
    horizon, held_out = config.data.horizon, data.split(len(actions), config.task)["held_out"]
    trained = [a for i, a in enumerate(actions) if i not in held_out]
    rng = np.random.default_rng(config.task.data_seed)
    parts = []
    for part in (trained, [actions[i] for i in held_out]):
        chunks = _chunks(part, horizon, 1)
        single = np.moveaxis(chunks, 2, 1).reshape(-1, horizon, 1)
        parts.append(rng.permutation(single)[: config.task.field.chunks])
    widths = np.arange(1, horizon + 1)
    steps = config.task.field.steps
    losses = locality.denoising_losses(*parts, grid(_LEVELS), widths, steps=steps)
    field = locality.receptive_field(losses)
    fields = dict(sigma=losses.levels, width=widths, loss=losses.loss)
    return fields | {"prior": np.array(losses.prior), "field": field}


def _chunks(actions, length, every):
    """Pieces [N, length, d] of episodes, which start at every so many frames."""
    return np.concatenate(
        [
            a[np.arange(0, len(a) - length + 1, every)[:, None] + np.arange(length)]
            for a in actions
            if len(a) >= length
        ]
    )
