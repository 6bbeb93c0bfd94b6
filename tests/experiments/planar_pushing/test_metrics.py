import math

import numpy as np
import pytest

from experiments.planar_pushing import metrics


def test_by_hand():
    error = [[0.01, 0.1], [0.02, 0.2], [0.03, 0.0], [0.1, 0.5]]
    found = metrics.summarise([True, True, False, False], error, [40, 60, 200, 200])
    assert (found.success.value, found.success.count) == (0.5, 4)
    # Wilson's interval of 2 in 4 by hand: 0.5 -+ z / (1 + z2/4) sqrt(1/16 + z2/64), z = 1.96.
    z2 = 1.959964**2
    half = math.sqrt(z2) / (1 + z2 / 4) * math.sqrt(1 / 16 + z2 / 64)
    assert found.success.low == pytest.approx(0.5 - half, abs=1e-6)
    assert found.success.high == pytest.approx(0.5 + half, abs=1e-6)
    assert found.position.value == pytest.approx(0.04)
    assert found.angle.value == pytest.approx(0.2)
    assert (found.seconds.value, found.seconds.count) == (pytest.approx(5.0), 2)


def test_no_success_has_no_time():
    found = metrics.summarise([False], [[0.1, 0.2]], [200])
    assert np.isnan(found.seconds.value) and found.seconds.count == 0


@pytest.mark.parametrize("wrong", [((), (), ()), ([True], [[0.1]], [3]), ([True], [[0.1, 0]], [])])
def test_bad_input(wrong):
    with pytest.raises(ValueError, match="at least one episode"):
        metrics.summarise(*map(np.array, wrong))
