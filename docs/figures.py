"""Draws the figures of docs/concepts.md into docs/figures/: python -m docs.figures

Chunks are Gaussian processes, so that every probability is exact; the seed is fixed.
"""

import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from ambient_jax.annotate import thresholds

FOLDER = pathlib.Path(__file__).parent / "figures"
STEPS, TAU = 32, 0.05
CLEAN, CORRUPT = "#1b7837", "#c0392b"
LEVELS = np.linspace(0.005, 0.995, 100)


def smooth(length: float = 8.0) -> np.ndarray:
    """Covariance [STEPS, STEPS] of chunks of unit variance that vary over ``length`` steps."""
    apart = np.subtract.outer(np.arange(STEPS), np.arange(STEPS))
    return np.exp(-0.5 * (apart / length) ** 2) + 1e-6 * np.eye(STEPS)


def noised(x0: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Returns x_t, variance preserving."""
    return np.sqrt(1 - sigma**2) * x0 + sigma * rng.normal(size=x0.shape)


def p_clean(clean: np.ndarray, corrupt: np.ndarray, draws: int = 2000) -> np.ndarray:
    """Returns the mean probability of "clean" over noised corrupt chunks at LEVELS, both classes
    being equally likely, for zero means and the covariances of both."""
    rng, found = np.random.default_rng(0), []
    x0 = rng.multivariate_normal(np.zeros(STEPS), corrupt, size=draws)
    for sigma in LEVELS:
        x_t = noised(x0, sigma, rng)
        logit = _log_density(x_t, clean, sigma) - _log_density(x_t, corrupt, sigma)
        found.append(np.mean(1 / (1 + np.exp(-np.clip(logit, -50, 50)))))
    return np.asarray(found)


def _log_density(x, covariance, sigma):
    noisy = (1 - sigma**2) * covariance + sigma**2 * np.eye(STEPS)
    _, logarithm = np.linalg.slogdet(noisy)
    return -0.5 * (np.sum(x * np.linalg.solve(noisy, x.T).T, 1) + logarithm)


def draw_noise() -> plt.Figure:
    """A smooth and a jagged motion under more and more noise."""
    rng = np.random.default_rng(3)
    clean = rng.multivariate_normal(np.zeros(STEPS), smooth())
    jagged = clean + 0.15 * rng.normal(size=STEPS)
    levels = (0.0, 0.1, 0.3, 0.7)
    figure, axes = plt.subplots(2, len(levels), figsize=(8, 3.2), sharex=True, sharey=True)
    for row, (x0, colour, name) in enumerate(
        ((clean, CLEAN, "clean"), (jagged, CORRUPT, "corrupt"))
    ):
        for axis, sigma in zip(axes[row], levels, strict=True):
            axis.plot(noised(x0, sigma, rng), color=colour, linewidth=1.5)
            axis.set_title(f"sigma {sigma:g}" if row == 0 else "", fontsize=10)
        axes[row, 0].set_ylabel(f"{name}\nx_t")
        axes[1, 1].set_xlabel("step of the chunk", x=1.1)
    return figure


def draw_sigma_min() -> plt.Figure:
    """P(clean) against sigma for two strengths of jitter, with the sigma_min of each."""
    figure, axis = plt.subplots(figsize=(6, 3.4))
    axis.axhline(0.5 - TAU, color="0.5", linestyle=":", linewidth=1)
    axis.text(0.99, 0.5 - TAU - 0.03, "1/2 - tau", color="0.4", ha="right", fontsize=9)
    for jitter, shade in ((0.05, "#e08e79"), (0.2, CORRUPT)):
        curve = p_clean(smooth(), smooth() + jitter**2 * np.eye(STEPS))
        bound = float(thresholds.sigma_min(LEVELS, curve, tau=TAU))
        axis.plot(LEVELS, curve, color=shade, label=f"jitter {jitter:g}: sigma_min {bound:.2f}")
        axis.vlines(bound, 0, 0.5 - TAU, color=shade, linestyle="--", linewidth=1)
    axis.set(xlabel="noise level sigma", ylabel="mean P(clean) of corrupt chunks")
    axis.set(xlim=(0, 1), ylim=(0, 0.52))
    axis.legend(loc="lower right", frameon=False)
    return figure


def draw_bands() -> plt.Figure:
    """Which noise levels each kind of sample trains."""
    rows = {
        "clean": [(0, 1)],
        "corrupt, sigma_min 0.3": [(0.3, 1)],
        "corrupt, sigma_min 1, sigma_max 0.2": [(0, 0.2)],
        "corrupt, sigma_min 0.3, sigma_max 0.2": [(0, 0.2), (0.3, 1)],
    }
    figure, axis = plt.subplots(figsize=(6, 2.2))
    for place, (name, bands) in enumerate(rows.items()):
        widths = [(low, high - low) for low, high in bands]
        axis.broken_barh(widths, (place - 0.3, 0.6), color=CLEAN if name == "clean" else CORRUPT)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xlabel="noise level sigma (0: the data, 1: pure noise)")
    return figure


def main() -> None:
    """Writes all figures."""
    FOLDER.mkdir(exist_ok=True)
    figures = {"noise": draw_noise, "sigma_min": draw_sigma_min, "bands": draw_bands}
    for name, draw in figures.items():
        figure = draw()
        for axis in figure.axes:
            axis.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        figure.savefig(FOLDER / f"{name}.png", dpi=150)
        plt.close(figure)
        print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
