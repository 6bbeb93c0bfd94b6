"""The scene: sizes that change, clearance, limits of what is drawn."""

import copy

import mujoco
import numpy as np
import pytest

from experiments.arm import scene
from experiments.arm.problems import NOMINAL


@pytest.fixture(scope="module")
def arm():
    return scene.Arm()


def distances(arm, drawn, q):
    """Signed distances [S] of the arm to each box and the pillar by ``mj_geomDistance``, which
    looks at no bounds; the solids are placed anew in a copy of the model."""
    model, data = copy.copy(arm.model), mujoco.MjData(arm.model)
    data.mocap_pos[:], data.mocap_quat[:], data.qpos[:] = 0, [1, 0, 0, 0], q
    mujoco.mj_kinematics(model, data)
    turn, origin = scene.rotation(drawn[2]), np.array([*drawn[:2], 0])
    *boxes, pillar = scene.solids(drawn)
    placed = [(origin + turn @ box.middle, turn, box.half) for box in boxes]
    placed.append((pillar.middle, np.eye(3), pillar.half))
    nearest = []
    for name, (middle, axes, half) in zip(
        [*(f"box{cell}" for cell in range(scene.CELLS)), "pillar"], placed, strict=True
    ):
        geom = model.geom(name).id
        model.geom_size[geom] = half
        data.geom_xpos[geom], data.geom_xmat[geom] = middle, axes.ravel()
        ours = np.flatnonzero(model.geom_contype == 1)
        nearest.append(min(mujoco.mj_geomDistance(model, data, g, geom, 1.0, None) for g in ours))
    return np.array(nearest)


def touched(arm, q):
    """Names of the boxes and the pillar that the configuration touches."""
    arm.collides(q)
    pairs = [contact.geom for contact in arm.data.contact]
    return {arm.model.geom(g).name for pair in pairs for g in pair} - {"", "ground"}


def test_collisions_follow_the_sizes_of_each_scene(arm):
    rng = np.random.default_rng(0)
    names = np.array([*(f"box{cell}" for cell in range(scene.CELLS)), "pillar"])
    met = 0
    for _ in range(90):
        drawn = scene.draw(rng)
        # Larger and smaller than those before: what MuJoCo keeps of a size must follow.
        drawn[5:-3:4] *= rng.uniform(0.3, 4)
        drawn[-1] = rng.uniform(0.2, 1.2)
        q = np.clip(NOMINAL + rng.normal(size=7) * 0.6, *arm.limits.T)
        arm.place(drawn)
        got = touched(arm, q)
        expected = distances(arm, drawn, q)
        met += len(got)
        assert set(names[expected < -1e-4]) <= got <= set(names[expected < 1e-4])
    assert met > 10


def test_clearance_is_a_distance(arm):
    wide = scene.Arm(clearance=0.05)
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(40):
        drawn = scene.draw(rng)
        q = np.clip(NOMINAL + rng.normal(size=7) * 0.3, *arm.limits.T)
        arm.place(drawn)
        wide.place(drawn)
        nearest = distances(arm, drawn, q).min()
        if nearest < 0.049:
            assert wide.collides(q)
        assert wide.collides(q) or not arm.collides(q)
        seen.add((wide.collides(q), arm.collides(q)))
    assert (True, False) in seen


def test_drawn_scenes_stay_within_their_ranges():
    drawn = np.stack([scene.draw(np.random.default_rng(i)) for i in range(200)])
    assert drawn.shape == (200, scene.SIZE)
    assert (drawn >= scene.RANGES[:, 0]).all() and (drawn <= scene.RANGES[:, 1]).all()
    boxes = np.stack([[s.middle for s in scene.solids(d)[:-1]] for d in drawn])
    for cell in range(scene.CELLS):  # a box stands on the floor of its own cell
        middle = scene.cell_middle(cell)
        assert (np.abs(boxes[:, cell, 1] - middle[1]) < scene.WIDTH / 2).all()
        assert (boxes[:, cell, 2] > middle[2]).all()


def test_the_jacobian_is_the_derivative(arm):
    q = NOMINAL + 0.1
    at, turned, jacobian = arm.hand_jacobian(q)
    for joint in range(scene.JOINTS):
        step = 1e-6 * np.eye(scene.JOINTS)[joint]
        moved, rotated = arm.hand(q + step)
        spin = (rotated - turned) @ turned.T / 1e-6
        np.testing.assert_allclose((moved - at) / 1e-6, jacobian[:3, joint], atol=1e-4)
        vector = [spin[2, 1], spin[0, 2], spin[1, 0]]
        np.testing.assert_allclose(vector, jacobian[3:, joint], atol=1e-4)


def test_a_wrong_scene_is_refused(arm):
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(22,\)"):
        arm.place(np.zeros(3))
