"""Shared by the tests of the data."""

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def messages():
    """What mmengine's current logger is given, which is not printed."""
    found = []
    logger = MMLogger.get_current_instance()
    keep = lambda record: found.append(record.getMessage()) or False  # noqa: E731
    logger.addFilter(keep)
    yield found
    logger.removeFilter(keep)
