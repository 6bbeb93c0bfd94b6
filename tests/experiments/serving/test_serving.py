"""Rollouts through a server, and what the table says of measurements."""

import threading

import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.cli.report import plain
from ambient_jax.estimates import paired, wilson
from ambient_jax.policy.policy import Policy
from ambient_jax.serve.remote import RemotePolicy
from ambient_jax.serve.server import Options, running
from ambient_jax.transforms.normalizer import Normalizer
from experiments.maze import env, rollout
from experiments.serving import load, processes, tables
from experiments.serving.rollouts import remote_plan
from experiments.table.rollouts import plan
from tests.serve import made


def test_a_rollout_through_the_server_is_the_rollout_of_the_policy():
    names = ("action", "observation/state", "observation/goal")
    maps = [{name: np.full(2, value, np.float32) for name in names} for value in (2.5, 2.5)]
    params = {"gain": jnp.float32(0.1)}
    common = dict(horizon=made.HORIZON, history=2, steps=2)
    policy = Policy(made.Sees(), params, Normalizer("bounds", *maps), **common)
    goals = env.free_goals(np.random.default_rng(0), 6)

    def simulated(plan):
        return rollout.Simulator(plan, history=2, max_steps=8)(params, goals, seed=3)

    here = simulated(plan(policy, 2))
    with running(policy, Options(port=0, max_batch=4)) as port:
        with RemotePolicy.connect("127.0.0.1", port, connections=2, patience=0) as remote:
            there = simulated(remote_plan(remote, 2))
    np.testing.assert_array_equal(here.lengths, there.lengths)
    np.testing.assert_allclose(here.positions, there.positions, atol=1e-4)
    assert here.lengths.max() > 2  # some plan was made from what an earlier one led to


def rolled(here, there):
    one = {"episodes": 4, "solver": ["ddim", 2], "client": "ambient_jax", "other_outcome": 1}
    gap = paired(there, here)
    one |= {"local": wilson(sum(here), 4), "served": wilson(sum(there), 4), "difference": gap}
    return plain(one)


def test_the_table_says_what_holds():
    trip = {"calls": 10, "bytes": 1024, "local_ms": 10.0, "served_ms": 14.5, "limit_ms": 14.0}
    trip["beside_policy_ms"] = 1.5
    slow, fast = trip, {**trip, "served_ms": 13.9}
    parts = {
        "maze": rolled([1, 1, 0, 1], [1, 0, 1, 1]),
        "pushing": rolled([1, 1, 1, 1], [0, 0, 0, 0]),
        "round_trip": {"state": {"ours": slow, "openpi": fast}},
    }
    lines = tables.table(parts).splitlines()[2:]
    assert [line.rsplit("|", 2)[1].strip() for line in lines] == ["yes", "**no**", "**no**", "yes"]
    assert "75.0% (30.1 to 95.4)" in lines[0] and "at most 14.00 ms" in lines[2]


def test_a_wrong_chunk_is_no_answer():
    chunk = np.ones((4, 2), np.float32)
    assert load.is_answer(chunk, chunk + 1e-6)
    assert not load.is_answer(chunk, chunk + 0.01) and not load.is_answer(chunk[:3], chunk)


def test_processes_that_end_are_told_in_one_line(monkeypatch):
    """A command prints an OSError as one line."""
    monkeypatch.setattr(processes.sys, "executable", "/bin/false")
    with pytest.raises(ChildProcessError, match="the server did not start"):
        with processes.served("checkpoint"):
            pass
    with pytest.raises(ChildProcessError, match="client ended with code 1, expected answers"):
        processes.Stock("/bin/false", 1)
    with pytest.raises(ChildProcessError, match="a client has ended"):
        load._alive([threading.Thread()])
