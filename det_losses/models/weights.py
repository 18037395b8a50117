"""Pretrained weights, and when they are not read."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_skipped: ContextVar[list[str] | None] = ContextVar("skipped", default=None)


@contextmanager
def weights_skipped() -> Iterator[list[str]]:
    """Build models without reading or downloading weights, because those of a checkpoint follow.

    Yields:
        The weights that were not read, in order.
    """
    found: list[str] = []
    token = _skipped.set(found)
    try:
        yield found
    finally:
        _skipped.reset(token)


def is_skipped(source: Any) -> bool:
    """Return whether weights are not to be read now; then they are noted."""
    found = _skipped.get()
    if found is not None:
        found.append(str(source))
    return found is not None
