"""Demonstrations that cannot be made are one line of a command."""

import os

import pytest

from experiments import demos


def test_a_process_that_dies_is_an_error_of_the_system():
    with pytest.raises(ChildProcessError, match="died .*: try fewer workers"):
        list(demos.successes(os._exit, 4, label="none", workers=2, progress=False))


def test_experts_that_fail_are_bad_input():
    fails = {"label": "none", "workers": 1, "progress": False}
    with pytest.raises(ValueError, match="12 of 12 demonstrations failed"):
        list(demos.successes(lambda index: None, 6, **fails))
