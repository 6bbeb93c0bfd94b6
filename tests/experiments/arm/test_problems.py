"""Problems: free ends in two cells, the same from the same seed."""

import numpy as np

from experiments.arm import problems, scene


def test_one_hand_is_in_the_cell_and_both_are_free():
    arm = scene.Arm(clearance=problems.CLEARANCE)
    first = set()
    for seed in range(6):
        problem = problems.draw(seed, arm)
        arm.place(problem.scene)
        turn, inside = scene.rotation(problem.scene[2]), []
        for q in (problem.start, problem.goal):
            assert not arm.collides(q)
            assert (q >= arm.limits[:, 0]).all() and (q <= arm.limits[:, 1]).all()
            tip = turn.T @ (arm.hand(q)[0] - [*problem.scene[:2], 0])  # in the shelf's frame
            inside.append(tip[0] > 0)
            assert tip[0] < scene.DEPTH
            if inside[-1]:
                middle = scene.cell_middle(problem.cell)
                assert abs(tip[1] - middle[1]) < scene.WIDTH / 2
                assert 0 < tip[2] - middle[2] < scene.HEIGHT
        assert sorted(inside) == [False, True]
        first.add(inside[0])
    assert first == {False, True}


def test_a_seed_gives_one_problem():
    a, b, c = (problems.draw(seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(a.start, b.start)
    np.testing.assert_array_equal(a.scene, b.scene)
    assert not np.array_equal(a.scene, c.scene)


def test_inverse_kinematics_reaches_a_pose_or_says_that_it_did_not():
    arm = scene.Arm()
    q = problems.NOMINAL + np.array([0.2, 0.1, -0.2, 0.1, 0.1, -0.1, 0.2])
    position, rotation = arm.hand(q)
    found = problems.inverse_kinematics(arm, position, rotation, problems.NOMINAL)
    reached, turned = arm.hand(found)
    np.testing.assert_allclose(reached, position, atol=2e-3)
    np.testing.assert_allclose(turned, rotation, atol=4e-3)
    far = position + [3, 0, 0]
    assert problems.inverse_kinematics(arm, far, rotation, problems.NOMINAL) is None
