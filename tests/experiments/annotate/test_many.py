"""The comparison of rules, from its config to its report."""

import json

import numpy as np
import pytest

from ambient_jax.train import config as config_lib
from ambient_jax.train import sweep
from experiments.annotate import __main__ as command
from experiments.annotate import config as annotate_config
from experiments.annotate import many


def test_both_policies_are_one_program_and_neither_trains_on_held_out_episodes():
    config = annotate_config.get_config("many")
    configs = many.policies(config)
    sweep.check(configs)
    for name, one in configs.items():
        config_lib.check(one)
        weights = {n: s.weight for n, s in one.data.sources.items()}
        assert len(weights) == 50 and weights["held_out"] == 0 and weights["clean"] == 1
        corrupt = {w for n, w in weights.items() if n not in ("clean", "held_out")}
        assert corrupt == ({1.0} if name == "mixed" else {0.0})
    parts = [config.data.sources[name].split for name in ("clean", "held_out")]
    assert parts == ["train[:80%]", "train[80%:]"]
    assert config.data.sources.short_03.role == "corrupt"  # the caller's config is untouched


@pytest.mark.slow
def test_the_report_compares_every_rule_with_the_exact_bounds(tmp_path):
    config = annotate_config.get_config("many_debug")
    config.data.root = str(tmp_path / "data")
    command.run(config, str(tmp_path))
    for folder, count in {"linear": 6, "policies/report": 4}.items():
        results = json.loads((tmp_path / folder / "results.json").read_text())
        assert len(results["exact"]) == 6 and len(results["scores"]) == count
        for name, found in results["found"].items():
            gap = [abs(found[n] - v) for n, v in results["exact"].items()]
            assert results["scores"][name]["mean"] == pytest.approx(np.mean(gap))
            assert all(0 <= v <= 1 for v in found.values())
        assert (tmp_path / folder / "rules.png").stat().st_size > 10_000
    assert all(low <= high for low, high in results["interval"].values())
