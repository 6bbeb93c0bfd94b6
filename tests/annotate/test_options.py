import dataclasses

import ml_collections
import pytest

from ambient_jax.annotate import config
from ambient_jax.annotate.options import Options


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"granularity": ("dataset", "randm:5")},
            "granularity is 'randm', .*did you mean 'random'",
        ),
        ({"analyses": ("jerks",)}, "analyses is 'jerks', expected one of spectrum, jerk"),
        ({"judged": 9}, "judged is 9 and granularity .*set judged to 0"),
        ({"judged": 9, "granularity": ("dataset", "episode")}, "judged is 9"),
    ],
)
def test_impossible_options_are_refused_here_and_in_a_config(fields, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Options(**fields)
    task = ml_collections.ConfigDict(dataclasses.asdict(Options()) | fields | {"other": 1})
    with pytest.raises(ValueError, match=f"^config.task.{message}"):
        Options.from_config(task)


def test_options_are_those_of_a_section_that_may_have_more():
    assert Options.from_config(config.default().task) == Options()
    fields = {"granularity": ("dataset",), "judged": 9, "tau": 0.1, "encoder": (2, 16, 1)}
    task = ml_collections.ConfigDict(dataclasses.asdict(Options()) | fields | {"other": 1})
    assert Options.from_config(task) == Options(**fields)
    assert Options(granularity=("random:1000", "ordered:7")).bucket == 100
