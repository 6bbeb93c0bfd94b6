"""Plots are well-formed SVG whose points lie where the values say."""

import xml.etree.ElementTree as xml

import numpy as np

from ambient_jax.data.look import plots


def points(svg):
    lines = xml.fromstring(svg).iter("polyline")
    return [np.array([p.split(",") for p in e.get("points").split()], float) for e in lines]


def texts(svg):
    return [e.text for e in xml.fromstring(svg).iter("text")]


def test_points_are_affine_in_time_and_value():
    t, v = np.linspace(0, 4, 9), np.sin(np.arange(9.0))
    lines = points(plots.curves([(t, v), (t / 2, 2 * v)], "a", "s"))
    x, y = np.concatenate(lines).T
    # One line for both curves: they share their axes. Up is less in SVG.
    for given, drawn, sign in ((np.r_[t, t / 2], x, 1), (np.r_[v, 2 * v], y, -1)):
        slope = np.polyfit(given, drawn, 1)
        np.testing.assert_allclose(np.polyval(slope, given), drawn, atol=0.1)
        assert slope[0] * sign > 0


def test_gaps_and_constants():
    v = np.array([0.0, 1.0, np.nan, np.nan, 2.0, 3.0, np.inf, 4.0])
    found = points(plots.curves([(np.arange(8.0), v)], "a", "s"))
    assert [len(line) for line in found] == [2, 2, 1]
    assert len(points(plots.curves([(np.arange(3.0), np.full(3, np.nan))], "a", "s"))) == 0
    (flat,) = points(plots.curves([(np.arange(3.0), np.full(3, 7.0))], "a", "s"))
    assert set(flat[:, 1]) == {flat[0, 1]} and np.isfinite(flat).all()
    assert "7" in texts(plots.curves([(np.arange(3.0), np.full(3, 7.0))], "a", "s"))


def test_titles_are_escaped():
    svg = plots.curves([(np.arange(2.0), np.arange(2.0))], '<b>&"x', "s")
    assert '<b>&"x' in texts(svg)


def test_bars_hold_all_episodes():
    rng = np.random.default_rng(0)
    for values in (rng.integers(5, 9000, 500), np.array([7]), np.array([3, 3, 4]), np.arange(50)):
        root = xml.fromstring(plots.histogram(values, "steps"))
        counts = [int(e.text.split(": ")[1].split()[0]) for e in root.iter("title")]
        assert sum(counts) == len(values)
        for bar in root.iter("rect"):
            assert 0 <= float(bar.get("x")) and float(bar.get("height")) > 0
        assert {str(values.min()), str(values.max())} <= {e.text for e in root.iter("text")}
