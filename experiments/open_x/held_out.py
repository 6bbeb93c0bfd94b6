"""Held-out chunks of the inputs variant with the truth about their scenes."""

from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from ambient_jax.data import mixture as mixtures
from ambient_jax.data import rlds
from ambient_jax.data.paths import below
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from experiments.open_x import scene


class HeldOut(NamedTuple):
    """A chunk at each of the L steps of E held-out episodes, by episode and step [E L, ...], and
    what the policy does not see: places e [E L, 2] of the effector and [E L, n, 2] of the objects,
    m, the objects' colours and shapes [E L, n] as indices of ``scene.COLOURS`` and
    ``scene.SHAPES``, and the index [E L] of the one that the instruction names."""

    chunks: evaluation.Chunks
    effector: np.ndarray
    objects: np.ndarray
    colours: np.ndarray
    shapes: np.ndarray
    named: np.ndarray


def read(config: ml_collections.ConfigDict, policy: Policy) -> HeldOut:
    """Reads all chunks of the clean source's split val, and the truth about their scenes."""
    folder = below(config.data.root, config.data.sources.steady.path)
    dataset = mixtures.open_source(config.data, "steady", split="val")
    everything = dict(episodes=len(dataset), samples=len(dataset) * scene.STEPS)
    chunks = evaluation.recorded(dataset, policy, padding=config.data.padding, **everything)
    order = np.lexsort(chunks.origin.T[::-1])
    chunks = jax.tree.map(lambda a: a[order], chunks)
    truth = rlds.open_dataset(folder, "val", keys=("episode_metadata",))
    truth = [truth[i]["episode_metadata"] for i in range(len(truth))]
    names = ("objects", "colours", "shapes", "named")
    facts = [np.stack([t[name] for t in truth])[chunks.origin[:, 0]] for name in names]
    return HeldOut(chunks, chunks.observation["state"][:, -1], *facts)


def swapped(chunks: evaluation.Chunks, name: str) -> evaluation.Chunks:
    """Returns the chunks with one observation taken from the next scene, at the same step."""
    observation = dict(chunks.observation)
    observation[name] = np.roll(observation[name], scene.STEPS, axis=0)
    return chunks._replace(observation=observation)
