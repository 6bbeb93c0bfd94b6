"""Measures of a table's policies: who shares a compiled program, and what is kept."""

import types

import ml_collections
import numpy as np

from experiments.table import rollouts
from experiments.table.experiment import Table

POLICIES = {"narrow": 8, "also_narrow": 8, "wide": 16}


def test_only_policies_of_one_network_share_what_is_compiled(tmp_path, monkeypatch):
    loaded = {}

    def from_checkpoint(folder):
        name = folder.parent.name
        network = types.SimpleNamespace(width=POLICIES[name])
        chain = types.SimpleNamespace(to_json=lambda: "{}")
        policy = types.SimpleNamespace(name=name, model=network, dims={"state": 4}, chain=chain)
        return loaded.setdefault(name, policy)

    monkeypatch.setattr(rollouts.Policy, "from_checkpoint", from_checkpoint)
    monkeypatch.setattr(rollouts.cache, "step", lambda folder: 2)
    config = ml_collections.ConfigDict({"task": {"seeds": (0,)}, "train": {"steps": 2}})
    table = Table(types.SimpleNamespace(), config, tmp_path, {})
    for name in POLICIES:
        table.folder(name, 0).mkdir(parents=True)
    pairs = []

    def measure(policy, like):
        pairs.append((policy.name, like.name))
        return {"width": np.array(policy.model.width)}

    measured = rollouts.kept_measures(table, POLICIES, (0,), {"of": "widths"}, measure)
    assert pairs == [("narrow", "narrow"), ("also_narrow", "narrow"), ("wide", "wide")]
    assert {name: int(item["width"]) for name, [item] in measured.items()} == POLICIES
    # What is kept is not measured again, unless it depends on something else.
    again = rollouts.kept_measures(table, POLICIES, (0,), {"of": "widths"}, measure)
    assert len(pairs) == 3 and {n: int(i["width"]) for n, [i] in again.items()} == POLICIES
    rollouts.kept_measures(table, POLICIES, (0,), {"of": "other"}, measure)
    assert len(pairs) == 6
