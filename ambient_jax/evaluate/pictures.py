"""Pictures of a policy in training: sampled chunks beside recorded ones, the loss by noise level.

The recorded chunks and the noise are the same at every step, so that pictures can be compared.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import ml_collections
import numpy as np

from ambient_jax import schedules
from ambient_jax.data import mixture as mixtures
from ambient_jax.evaluate import evaluation
from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.policy.policy import Policy
from ambient_jax.train import metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 8  # of each recorded chunk
LOSS_ROWS = 64  # chunks of each source for the loss
DIMENSIONS = 10  # of the action, at most


@dataclasses.dataclass(frozen=True)
class Shown:
    """Recorded chunks and samples of them.

    ``cameras`` are the newest frames {camera: uint8 [N, h, w, 3]}, ``recorded`` [N, H, D] and
    ``samples`` [N, S, H, D] are in data units; ``mask`` [N, H] is False past an episode's end.
    """

    cameras: dict[str, np.ndarray]
    recorded: np.ndarray
    mask: np.ndarray
    samples: np.ndarray


class Painter:
    """Draws a config's policy of any parameters; reads its data at the first call.

    The chunks are those of the first clean source (of the first source if none is clean), the
    losses those of every source, from the split ``train.pictures_split``. Raises ValueError if a
    source has no such split.
    """

    def __init__(self, config: ml_collections.ConfigDict, mixture: mixtures.Mixture):
        self._padding, self._count = config.data.padding, config.train.pictures
        split = config.train.pictures_split
        # Opened anew, as the training reads its own in other threads.
        changes = {"split": split} if split else {}
        self._sources = {n: mixtures.open_source(config.data, n, **changes) for n in mixture.names}
        self._shown = first_clean(config, mixture)
        self._policies: dict[str, Policy] = {}
        by_chain: dict[str, Policy] = {}
        for name in mixture.names:
            policy = policy_of(config, mixture, name)
            # Sources with the same maps share what is compiled.
            self._policies[name] = by_chain.setdefault(policy.chain.to_json(), policy)
        self._chunks: dict[str, evaluation.Chunks] = {}

    def __call__(self, step: int, params: Any, writer: metrics.Writer) -> None:
        """Writes the pictures "chunks" and "losses" of parameters."""
        policy = self._policies[self._shown].with_params(params)
        chunks = self._recorded(self._shown)
        some = evaluation.Chunks(*jax.tree.map(lambda a: a[: self._count], tuple(chunks)))
        losses = {name: self._loss(name, params) for name in self._sources}
        figure = chunks_figure(sampled(policy, some), self._shown)
        writer.picture(step, "chunks", image_of(figure))
        writer.picture(step, "losses", image_of(losses_figure(losses)))

    def _recorded(self, name):
        if name not in self._chunks:
            options = dict(padding=self._padding, samples=max(LOSS_ROWS, self._count))
            source, policy = self._sources[name], self._policies[name]
            self._chunks[name] = evaluation.recorded(source, policy, **options)
        return self._chunks[name]

    def _loss(self, name, params):
        rows = self._recorded(name)[:3]
        options = dict(samples=LOSS_ROWS, params=params)
        return evaluation.denoising_loss(self._policies[name], *rows, **options)


def first_clean(config: ml_collections.ConfigDict, mixture: mixtures.Mixture) -> str:
    """Returns the first clean source, or the first one if none is clean."""
    clean = [name for name in mixture.names if config.data.sources[name].role == "clean"]
    return [*clean, *mixture.names][0]


def policy_of(config: ml_collections.ConfigDict, mixture: mixtures.Mixture, source: str) -> Policy:
    """Returns the policy of a training for data of one source, without parameters."""
    chain = mixture.chain.cropped(config.augmentation.crop).for_source(source)
    schedule = config.schedule.to_dict()
    return Policy(
        model=build_denoiser(config.model, chain.inputs(config.data.history)),
        params=None,
        chain=chain,
        horizon=config.data.horizon,
        history=config.data.history,
        schedule=schedules.get(schedule.pop("name"), **schedule),
        prediction=config.objective.prediction,
        **{option: config.policy[option] for option in ("solver", "steps", "clip")},
    )


def sampled(policy: Policy, chunks: evaluation.Chunks, samples: int = SAMPLES) -> Shown:
    """Samples chunks of a policy for recorded ones, with the same noise whatever the policy."""
    count = len(chunks.action)
    repeated = {n: np.repeat(v, samples, axis=0) for n, v in chunks.observation.items()}
    actions = np.asarray(policy(repeated, jax.random.key(0)))
    cameras = policy.chain.images.cameras if policy.chain.images else ()
    frames = {camera: chunks.observation[f"image_{camera}"][:, -1] for camera in cameras}
    actions = actions.reshape(count, samples, *actions.shape[1:])
    return Shown(frames, np.asarray(chunks.action), np.asarray(chunks.mask), actions)


def chunks_figure(shown: Shown, source: str) -> Figure:
    """Draws a row for each recorded chunk: what the cameras see, then each action dimension with
    the recorded chunk (black) and the samples."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    count, _, horizon, width = shown.samples.shape
    width, cameras = min(width, DIMENSIONS), list(shown.cameras)
    columns = len(cameras) + width
    figure = Figure(figsize=(1.9 * columns + 0.6, 1.5 * count + 0.7), layout="constrained")
    grid = figure.subplots(count, columns, squeeze=False)
    ahead = np.arange(1, horizon + 1)
    for row, axes in enumerate(grid):
        for camera, axis in zip(cameras, axes, strict=False):
            axis.imshow(shown.cameras[camera][row])
            axis.set(xticks=[], yticks=[])
        for d, axis in enumerate(axes[len(cameras) :]):
            axis.plot(ahead, shown.samples[row, :, :, d].T, lw=0.9, alpha=0.6, color="tab:blue")
            recorded = np.where(shown.mask[row], shown.recorded[row, :, d], np.nan)
            axis.plot(ahead, recorded, ".-", lw=1.4, ms=3, color="black")
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axis.tick_params(labelsize=6)
            axis.grid(alpha=0.25)
            if row < count - 1:
                axis.set_xticklabels([])
            else:
                axis.set_xlabel("step ahead", fontsize=7)
            low, high = axis.get_ylim()  # a still dimension is a line, not its rounding
            if high - low < 1e-3:
                axis.set_ylim((low + high) / 2 - 5e-4, (low + high) / 2 + 5e-4)
    titles = [*cameras, *(f"action {d}" for d in range(width))]
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    legend = f"source {source}; black: recorded, blue: {shown.samples.shape[1]} samples"
    figure.suptitle(legend, fontsize=8)
    return figure


def losses_figure(losses: dict[str, np.ndarray]) -> Figure:
    """Draws each source's loss of x0_hat [L] by noise level (``evaluation.LEVELS``)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for k, (name, loss) in enumerate(losses.items()):
        line = ("-", "--", ":")[k // 10 % 3]
        axes.plot(evaluation.LEVELS, loss, line, marker=".", lw=1, color=f"C{k % 10}", label=name)
    axes.set(xscale="logit", yscale="log", xlabel=r"noise level $\sigma$")
    axes.set_xticks([0.005, 0.05, 0.5, 0.95], ["0.005", "0.05", "0.5", "0.95"])
    axes.minorticks_off()
    axes.set_ylabel(r"squared error of $\hat{x}_0$ (normalised)", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, ncols=1 + len(losses) // 12)
    return figure


def image_of(figure: Figure, dpi: int = 110) -> np.ndarray:
    """Returns a figure's pixels, uint8 [h, w, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
