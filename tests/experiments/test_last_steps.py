"""The experiments' own data have a real action in every step: their configs say so."""

import pytest

from experiments.annotate import config as annotate
from experiments.bin_sorting import config as bin_sorting
from experiments.maze import config as maze
from experiments.open_x import config as open_x
from experiments.planar_pushing import config as planar_pushing

OWN = {
    annotate: ("maze", "debug", "bins", "open_x_debug"),
    bin_sorting: ("table", "quick"),
    maze: ("table", "quick"),
    open_x: ("demo", "demo_debug", "debug", "inputs"),
    planar_pushing: ("table", "quick", "scaling"),
}


@pytest.mark.parametrize(("module", "variant"), [(m, v) for m, vs in OWN.items() for v in vs])
def test_every_source_keeps_its_last_step(module, variant):
    data = module.get_config(variant).data
    assert data.sources and {s.last_step for s in data.sources.values()} == {"keep"}
    if data.padding == "hold":
        assert data.delta == ()
