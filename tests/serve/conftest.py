"""What the tests of the server share."""

import logging

import pytest
from absl import logging as absl_logging


@pytest.fixture
def quiet():
    """Leaves the log out of the test's output, where errors are what is tested."""
    logger = absl_logging.get_absl_logger()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)
