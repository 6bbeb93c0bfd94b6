"""Names of a config that stand for code."""

import collections
import fractions
import math

import pytest

from ambient_jax import _names

BUILTINS = {"ratio": fractions.Fraction, "lazy": "collections:Counter", "sum": math.fsum}


def test_a_name_is_built_in_imported_when_used_or_of_code_outside():
    resolve = lambda name: _names.resolve("config.x", name, BUILTINS)  # noqa: E731
    assert resolve("ratio") is fractions.Fraction
    assert resolve("lazy") is collections.Counter
    assert resolve("math:gcd") is math.gcd


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ratoi", "config.x is 'ratoi', expected one of ratio, lazy, sum; did you mean 'ratio'"),
        (3, "config.x is 3, expected one of ratio, lazy, sum"),
        (None, "config.x is None, expected one of"),
        ("math:gdc", "config.x is 'math:gdc', expected package.module:attribute"),
        ("no_such_module:f", "'no_such_module:f', expected .*No module named 'no_such_module'"),
        (":f", "config.x is ':f', expected package.module:attribute"),
    ],
)
def test_what_stands_for_nothing_is_said(name, message):
    with pytest.raises(ValueError, match=message):
        _names.resolve("config.x", name, BUILTINS)


def half(of, parent=None, name=None, **rest):
    return of / 2


def strict(of: float, *, times: int = 1, parent=None, name=None):
    if times < 0:
        raise ValueError("times is negative")
    return of * times


def test_a_thing_is_made_with_the_options_of_its_section():
    make = lambda name, /, **options: _names.make("config.x", name, known, options)  # noqa: E731
    known = {"half": half, "strict": strict, "number": 3}
    assert make("half", of=3, whatever=1) == 1.5
    assert make("strict", of=2.0, times=3) == 6.0
    assert make("fractions:Fraction", numerator=1, denominator=2) == fractions.Fraction(1, 2)
    for options, message in (
        ({"of": 1, "tims": 2}, "option of config.x 'strict' is 'tims', .*did you mean 'times'"),
        ({"of": 1, "parent": 2}, "option of config.x 'strict' is 'parent'"),
        ({"of": 1, "name": 2}, "option of config.x 'strict' is 'name'"),
        ({}, "config.x 'strict' with options {}: .*missing 1 required"),
        ({"of": 1, "times": -1}, "^times is negative$"),
    ):
        with pytest.raises(ValueError, match=message):
            make("strict", **options)
    with pytest.raises(ValueError, match="config.x is 'number', which cannot be called"):
        make("number")


def test_a_renamed_attribute_says_its_new_name():
    getattr_of = _names.renamed("pack.module", {"old": "pack.other.new"})
    with pytest.raises(ImportError, match="^pack.module.old is now pack.other.new$"):
        getattr_of("old")
    with pytest.raises(AttributeError, match="module 'pack.module' has no attribute 'unknown'"):
        getattr_of("unknown")
