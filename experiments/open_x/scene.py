"""Rendered tabletops with an instruction: data whose actions need both the image and the text.

Objects of different colours lie on a square of half side R seen from above. The instruction names
one of them; the end effector starts anywhere and closes in on it, a share of the rest of the way
each step: ``a_t = RATE (p - e_t)``. So e_{t + j} is known from p - e_t alone, whatever t.

What makes the laws exact (``floors``): the start is uniform on the square; which object is named is
uniform; and every object is uniform on the square whatever the others' distance must be, because
that distance is measured as on a torus, where no place is special.
"""

import dataclasses
import itertools
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from ambient_jax.data import write
from experiments import demos

HALF_SIDE = 0.14  # R, of the square that objects and starts lie on, m
RATE = 0.2  # share of the way to the object that one step goes
STEPS = 6  # of an episode
OBJECTS = 4  # of a scene, each of another colour
HZ = 5.0
PIXELS = 48
HALF_VIEW = 0.16  # of the image, m
_RADIUS = 0.02  # of objects, m
_APART = 0.045  # least distance of two objects, m, on the torus
COLOURS = {"red": (215, 45, 45), "green": (40, 165, 65), "blue": (45, 95, 225)}
COLOURS["yellow"] = (240, 205, 45)
SHAPES = ("block", "ball")
WORDINGS = ("push the {}", "go to the {}", "move to the {}", "reach for the {}", "the {}, please")
_TABLE, _EFFECTOR = (95, 90, 85), (15, 15, 15)
# How a user's own data set of this kind comes in, see ``ambient_jax.open_x.spec``.
SPEC = {
    "hz": HZ,
    "action": "xyz action | pad; rpy zeros; grip open",
    "state": "observation/effector",
    "language": "language_instruction",
    "primary": "observation/image",
}


@dataclasses.dataclass(frozen=True)
class Scene:
    """What lies where, and what is asked: OBJECTS centres [n, 2] (x to the right, y up) and the
    start [2] of the end effector, m; colours, all different, and shapes; the index of the object
    that the instruction names."""

    objects: np.ndarray
    colours: tuple[str, ...]
    shapes: tuple[str, ...]
    named: int
    instruction: str
    start: np.ndarray


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draws a scene of the law above."""
    side = 2 * HALF_SIDE
    while True:
        objects = rng.uniform(-HALF_SIDE, HALF_SIDE, (OBJECTS, 2))
        differences = (objects[:, None] - objects + HALF_SIDE) % side - HALF_SIDE
        distance = np.hypot(*differences.T)[~np.eye(OBJECTS, dtype=bool)]
        if distance.min() > _APART:
            break
    colours = tuple(rng.permutation(list(COLOURS))[:OBJECTS].tolist())
    shapes = tuple(rng.choice(SHAPES, OBJECTS).tolist())
    named = int(rng.integers(OBJECTS))
    text = WORDINGS[rng.integers(len(WORDINGS))].format(f"{colours[named]} {shapes[named]}")
    start = rng.uniform(-HALF_SIDE, HALF_SIDE, 2)
    return Scene(objects, colours, shapes, named, text, start)


def move(scene: Scene, jitter: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions e [STEPS, 2] and displacements a [STEPS, 2] of an episode, m; ``jitter`` is
    the standard deviation of the noise of each displacement, which moves the arm, m."""
    e, positions, actions = scene.start, [], []
    for _ in range(STEPS):
        a = RATE * (scene.objects[scene.named] - e) + jitter * rng.normal(size=2)
        positions.append(e)
        actions.append(a)
        e = e + a
    return np.stack(positions), np.stack(actions)


def render(scene: Scene, effector: np.ndarray) -> np.ndarray:
    """Renders the image [PIXELS, PIXELS, 3] uint8: objects, and the effector as a cross."""
    centres = (np.arange(PIXELS) + 0.5) / PIXELS * 2 * HALF_VIEW - HALF_VIEW
    x, y = centres[None, :], -centres[:, None]
    soft = 2 * HALF_VIEW / PIXELS  # edges fade over a pixel, which shows places between pixels
    image = np.broadcast_to(np.array(_TABLE, float), (PIXELS, PIXELS, 3))

    def over(image, distance, colour):
        cover = np.clip(0.5 - distance / soft, 0, 1)[..., None]
        return image * (1 - cover) + cover * np.array(colour, float)

    for place, colour, shape in zip(scene.objects, scene.colours, scene.shapes, strict=True):
        dx, dy = np.abs(x - place[0]), np.abs(y - place[1])
        size = np.hypot(dx, dy) if shape == "ball" else np.maximum(dx, dy) * 1.13  # equal areas
        image = over(image, size - _RADIUS, COLOURS[colour])
    dx, dy = np.abs(x - effector[0]), np.abs(y - effector[1])
    arms = np.maximum(np.minimum(dx, dy) - 0.003, np.maximum(dx, dy) - 0.014)
    return np.round(over(image, arms, _EFFECTOR)).astype(np.uint8)


def episode(seed: int, jitter: float) -> dict:
    """Returns an RLDS episode; its metadata, which no policy sees, tell the objects."""
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng)
    positions, actions = move(scene, jitter, rng)
    images = np.stack([render(scene, e) for e in positions])
    observation = {"image": images, "effector": positions.astype(np.float32)}
    more = {"language_instruction": [scene.instruction] * STEPS}
    more["discount"] = np.ones(STEPS, np.float32)
    return {
        "steps": demos.steps(observation, actions.astype(np.float32)) | more,
        "episode_metadata": {
            "objects": scene.objects.astype(np.float32),
            "colours": np.array([list(COLOURS).index(c) for c in scene.colours]),
            "shapes": np.array([SHAPES.index(s) for s in scene.shapes]),
            "named": np.int64(scene.named),
        },
    }


def write_dataset(
    root: pathlib.Path, name: str, counts: dict[str, int], *, jitter: float, seed: int
) -> None:
    """Writes ``<root>/<name>/1.0.0`` of so many episodes by split, no two of one seed, unless it is
    there as asked for.

    See ``move`` for ``jitter``. Data sets of different ``seed`` have different scenes.
    """
    image = tfds.features.Image(shape=(PIXELS, PIXELS, 3), encoding_format="jpeg")
    features = write.rlds_features(
        {"image": image, "effector": np.zeros(2, np.float32)},
        np.zeros(2, np.float32),
        {"language_instruction": str},
        {
            **{name: np.zeros(OBJECTS, np.int64) for name in ("colours", "shapes")},
            **{"objects": np.zeros((OBJECTS, 2), np.float32), "named": np.int64},
        },
    )

    numbers = itertools.count()
    splits = {
        split: (episode([seed, next(numbers)], jitter) for _ in range(count))
        for split, count in counts.items()
    }
    key = {"episodes": dict(counts), "jitter": jitter, "seed": seed}
    demos.write(root, name, "1.0.0", key, features, splits)
