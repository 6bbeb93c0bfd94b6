"""The thread that plans: what is executed while a chunk is on its way, by steps and not by time."""

import threading

import numpy as np
import pytest

from ambient_jax.policy import chunks
from ambient_jax.policy.realtime import Background
from tests.policy.test_chunks import Clock


class Slow(Clock):
    """Hands each chunk over when it is told to; the first at once."""

    def __init__(self):
        super().__init__()
        self.seeds, self.go, self.fail = [], threading.Semaphore(1), False

    def __call__(self, observation, key, **given):
        chunk = super().__call__(observation, key, **given)
        self.seeds.append(key)
        if not self.go.acquire(timeout=20):
            raise TimeoutError("the test has not let the chunk go")
        if self.fail:
            raise ConnectionError("the policy's server is gone")
        return chunk


def act(control, step):
    control.observe({"step": [[step]]})
    return divmod(float(control.act()[0, 0]), 1000)


def let(control, policy):
    """Lets the chunk on its way arrive before the next step."""
    policy.go.release()
    control._coming.exception(timeout=20)


def test_the_old_chunk_is_executed_until_the_new_one_is_there():
    policy = Slow()
    with Background(policy, execute=3, delay=1) as control:
        assert [act(control, step) for step in range(5)] == [(0, step) for step in range(5)]
        let(control, policy)  # begun at step 3, there at step 5
        assert act(control, 5) == (3, 5)
        assert act(control, 6) == (3, 6)  # begins the next
        assert control.delays[-1] == 2 and control.held == 0
        let(control, policy)
        assert act(control, 7) == (6, 7)
    known = policy.calls[2]
    np.testing.assert_array_equal(known["known"][0, :5, 0], 3000 + np.arange(6, 11))
    np.testing.assert_array_equal(known["weights"][0], chunks.mask(8, 2, 5))
    np.testing.assert_array_equal(policy.calls[1]["weights"][0], chunks.mask(8, 1, 5))
    assert len(set(policy.seeds)) == 3


def test_no_more_actions_are_frozen_than_the_policy_may_be_told():
    """As a policy that was trained with a shorter prefix than its chunks' delay."""
    policy = Slow()
    policy.most_known = 2
    with Background(policy, execute=3, delay=4) as control:
        for step in range(5):
            act(control, step)
        let(control, policy)
    np.testing.assert_array_equal(policy.calls[1]["weights"][0], chunks.mask(8, 2, 5))


def test_the_last_action_is_held_if_a_chunk_comes_too_late():
    policy = Slow()
    with Background(policy, chunks.Receding(), execute=3) as control:
        got = [act(control, step) for step in range(10)]
        assert got == [(0, min(step, 7)) for step in range(10)]
        assert control.held == 2
        let(control, policy)
        assert policy.calls == [{}, {}]
        assert act(control, 10) == (3, 10)
        let(control, policy)  # so that the thread ends


def test_unaligned_chunks_start_with_their_first_action():
    policy = Slow()
    with Background(policy, chunks.Receding(aligned=False), execute=3) as control:
        assert act(control, 0) == (0, 0)
        for step in range(1, 5):
            act(control, step)
        let(control, policy)
        assert [act(control, step) for step in (5, 6)] == [(3, 3), (3, 4)]
        let(control, policy)


def test_an_error_of_the_policy_is_raised_in_the_control_loop():
    policy = Slow()
    with Background(policy, execute=2) as control:
        for step in range(3):
            act(control, step)
        policy.fail = True
        let(control, policy)
        with pytest.raises(ConnectionError, match="server is gone"):
            act(control, 3)
        policy.fail = False
        assert act(control, 4) == (0, 4)  # and begins again
        let(control, policy)
        assert act(control, 5) == (4, 5)


def test_reset_waits_for_a_first_chunk_again():
    policy = Slow()
    with Background(policy, execute=3) as control:
        for step in range(4):
            act(control, step)
        policy.go.release(3)
        control.reset()
        assert act(control, 100) == (100, 100)
        assert policy.calls[-1] == {}


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="expected Receding or RealTime"):
        Background(Clock(), chunks.Ensemble())
    with pytest.raises(ValueError, match="execute is 9"):
        Background(Clock(), execute=9)
