"""Pictures of planar pushing, drawn from the state by formulas: no OpenGL, and inside ``jax.jit``.

The scene is flat: a table, the goal and the slider (a T of two boxes each), a round pusher. Colours
at an edge mix over one pixel, by signed distances: motion of a tenth of a pixel is seen. Cameras:

image_primary  from above, 0.6 m wide, fixed
image_wrist    on the pusher: what lies around it, 0.2 m wide; it moves and does not turn
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.planar_pushing.scene import BAR, BAR_HALF, RADIUS, STEM, STEM_HALF, Scene

WIDTHS = {"image_primary": 0.6, "image_wrist": 0.2}  # m
PIXELS = 64
# RGB in [0, 1], those of the MuJoCo scene; the table has faint lines every 0.1 m.
_TABLE, _LINE = (0.85, 0.83, 0.8), (0.78, 0.76, 0.73)
_GOAL, _SLIDER, _PUSHER = (0.45, 0.75, 0.45), (0.3, 0.4, 0.7), (0.85, 0.3, 0.2)
_EVERY, _THICK = 0.1, 0.006  # m, of the table's lines


def draw(state: jax.Array, scene: Scene, pixels: int = PIXELS) -> dict[str, jax.Array]:
    """Returns the pictures {camera: [pixels, pixels, 3] uint8} of one state [>= 6], see
    ``PlanarPushingEnv``; up is y, right is x."""
    pusher, place, (c, s) = state[:2], state[2:4], state[4:6]
    x, y, yaw = scene.goal
    images = {}
    for name, width in WIDTHS.items():
        size = width / pixels  # m, of a pixel
        along = (jnp.arange(pixels) + 0.5) * size - width / 2
        points = jnp.stack(jnp.meshgrid(along, -along, indexing="xy"), -1)
        if name == "image_wrist":
            points = points + pusher
        mark = jnp.abs((points + _EVERY / 2) % _EVERY - _EVERY / 2).min(-1) - _THICK / 2
        image = _over(jnp.array(_TABLE), mark, _LINE, size)
        image = _over(image, _outside(points, (x, y), np.cos(yaw), np.sin(yaw)), _GOAL, size)
        image = _over(image, _outside(points, place, c, s), _SLIDER, size)
        image = _over(image, _length(points - pusher) - RADIUS, _PUSHER, size)
        images[name] = jnp.round(255 * image).astype(jnp.uint8)
    return images


def _over(below, distance, colour, size):
    """Paints a colour where the signed distance [h, w] to a shape is negative."""
    share = jnp.clip(0.5 - distance / size, 0, 1)[..., None]
    return below + share * (jnp.array(colour) - below)


def _outside(points, place, c, s):
    """Returns the signed distance of points [h, w, 2] to the T at a place and direction."""
    off = points - jnp.asarray(place)
    local = jnp.stack([c * off[..., 0] + s * off[..., 1], c * off[..., 1] - s * off[..., 0]], -1)
    boxes = []
    for centre, half in ((BAR, BAR_HALF), (STEM, STEM_HALF)):
        beyond = jnp.abs(local - jnp.array((0.0, centre))) - jnp.array(half)
        boxes.append(_length(jnp.maximum(beyond, 0)) + jnp.minimum(beyond.max(-1), 0))
    return jnp.minimum(*boxes)


def _length(vector):
    return jnp.sqrt((vector**2).sum(-1))
