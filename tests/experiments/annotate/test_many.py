"""The comparison of rules, from its config to its report."""

import json

import numpy as np
import pytest

from experiments.annotate import __main__ as command
from experiments.annotate import config as annotate_config
from experiments.annotate import many_report


def test_the_report_compares_every_rule_with_the_exact_bounds(tmp_path):
    command.run(annotate_config.get_config("many_debug"), str(tmp_path))
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert len(results["exact"]) == 6 and len(results["scores"]) == 6
    assert set(results["found"]) <= set(results["scores"])
    for name, found in results["found"].items():
        gap = [abs(found[n] - v) for n, v in results["exact"].items()]
        assert results["scores"][name]["mean"] == pytest.approx(np.mean(gap))
        assert all(0 <= v <= 1 for v in found.values())
    assert (tmp_path / "report" / "rules.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("field", "value"),
    [("task.sources", 24), ("task.episode_steps", 30), ("task.tau", 0.1), ("data.horizon", 4)],
)
def test_the_exact_answers_of_other_laws_are_refused(field, value, tmp_path):
    """The run that the variant names has 48 sources of 40 steps, tau 0.05 and a horizon of 8."""
    config = annotate_config.get_config("many")
    many_report.check(config)
    config.update_from_flattened_dict({field: value})
    told = rf"config\.{field} is {value}, expected .* as in experiments/annotate/results/mixture"
    with pytest.raises(ValueError, match=told):
        command.run(config, str(tmp_path))
