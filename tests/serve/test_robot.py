"""One robot without JAX: what it executes and asks, beside ``Background`` and the policy itself."""

import concurrent.futures
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from ambient_jax.policy import chunks
from ambient_jax.policy.realtime import Background
from ambient_jax.serve import client, robot
from ambient_jax.serve.robot import Robot
from ambient_jax.serve.server import Options, running
from tests.serve import made

METADATA = {"horizon": 8, "history": 2, "real_time": True}


class Asked:
    """A client whose answers come when they are let go, the first at once; the actions of a chunk
    are the steps that they are meant for."""

    def __init__(self, **told):
        self.metadata, self.requests, self._gone = METADATA | told, [], []

    def infer(self, request):
        gone = concurrent.futures.Future()
        self.requests.append(request)
        self._gone.append(gone)
        if len(self.requests) > 1:
            gone.result(20)
        now = np.asarray(request["step"]).reshape(-1)[-1]
        return {"actions": (now + np.arange(8.0, dtype=np.float32))[:, None]}

    def let(self, control):
        coming = control._coming
        while len(self._gone) < control._number:
            time.sleep(0.001)
        self._gone[-1].set_result(None)
        coming.result(20)


def act(control, step):
    return float(control.act({"step": np.float32([step]), "prompt": "go"})[0])


def test_it_executes_the_old_chunk_until_the_new_one_is_there_which_knows_it():
    asked = Asked()
    with Robot(asked, execute=3, delay=1, seed=5) as control:
        assert [act(control, step) for step in range(5)] == [0, 1, 2, 3, 4]
        asked.let(control)  # begun at step 3, there at step 5
        assert [act(control, step) for step in (5, 6)] == [5, 6]  # begins the next
        assert list(control.delays) == [1, 2] and control.held == 0
        asked.let(control)
    first, second, third = asked.requests
    np.testing.assert_array_equal(first["step"], [[0], [0]])
    np.testing.assert_array_equal(second["step"], [[2], [3]])
    seeds = [np.random.SeedSequence([5, n]).generate_state(1)[0] for n in range(3)]
    assert first["prompt"] == "go" and [r["seed"] for r in asked.requests] == seeds
    assert "known" not in first
    np.testing.assert_array_equal(third["known"][:5, 0], np.arange(6, 11))
    np.testing.assert_array_equal(second["weights"], chunks.mask(8, 1, 5))
    np.testing.assert_array_equal(third["weights"], chunks.mask(8, 2, 5))


@pytest.mark.parametrize("soft", (True, False))
def test_the_known_part_is_that_of_chunks(soft):
    chunk = np.random.default_rng(0).normal(size=(8, 2))
    for passed in (0, 3, 8, 11):
        for frozen in (0, 2, 8):
            known, weights = robot.remaining(chunk, passed, frozen, soft)
            expected = chunks.remaining(chunk[None], passed, frozen, soft)
            np.testing.assert_array_equal(known, expected[0][0])
            np.testing.assert_array_equal(weights, expected[1][0])


def test_a_late_chunk_holds_the_last_action_and_a_reset_waits_for_a_first_chunk():
    asked = Asked(real_time=False, history=1)
    with Robot(asked, execute=3) as control:
        assert [act(control, step) for step in range(10)] == [*range(8), 7, 7]
        assert control.held == 2 and not control.real_time
        asked.let(control)
        assert act(control, 10) == 10
        asked.let(control)
        assert not any({"known", "seed"} & set(request) for request in asked.requests)
        assert asked.requests[1]["step"].shape == (1,)
        with pytest.raises(ValueError, match="has pose, prompt, expected .*: prompt, step; reset"):
            control.act({"pose": np.zeros(1), "prompt": "go"})
        asked.requests.clear()  # the next one counts as the first
        control.reset()
        assert act(control, 100) == 100


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="execute is 9, expected 1 to 8"):
        Robot(Asked(), execute=9)
    with pytest.raises(ValueError, match="takes no known actions.*real_time=False"):
        Robot(Asked(real_time=False), real_time=True)
    with pytest.raises(ValueError, match="seed is -1, expected 0 or above, or None"):
        Robot(Asked(), seed=-1)


class Step(Background):
    """Waits for every chunk, so that it does not depend on time when it is there."""

    def act(self):
        if self._coming:
            self._coming.exception(20)
        return super().act()


class StepRobot(Robot):
    def act(self, observation):
        if self._coming:
            self._coming.exception(20)
        return super().act(observation)


def test_it_acts_as_the_policy_in_the_background():
    policy = made.policy(2)
    with running(policy, Options(port=0, max_batch=1)) as port, made.client(port) as one:
        with Step(policy, execute=2) as here, StepRobot(one, execute=2, seed=0) as there:
            for step in range(7):
                seen = made.observation(step)
                here.observe({n: v[None] for n, v in seen.items()})
                assert made.close(here.act()[0], there.act(seen)), step
            assert here.delays == there.delays and there._number > 2


def test_two_files_alone_run_a_robot_without_jax(tmp_path):
    for module in (client, robot):
        shutil.copy(module.__file__, tmp_path)
    script = """
import sys
import numpy as np
from client import Client
from robot import Robot

with Client("127.0.0.1", int(sys.argv[1]), patience=0) as client, Robot(client, execute=2) as robot:
    actions = [robot.act({"state": np.zeros(3), "goal": np.ones(2)}) for _ in range(9)]
print(np.shape(actions), robot.real_time, sorted({"jax", "ambient_jax"} & set(sys.modules)))
"""
    with running(made.policy(), Options(port=0, max_batch=1)) as port:
        done = subprocess.run(
            [sys.executable, "-c", script, str(port)], cwd=tmp_path, capture_output=True, text=True
        )
    assert not done.returncode, done.stderr
    assert done.stdout.split("\n")[0] == "(9, 2) True []"
