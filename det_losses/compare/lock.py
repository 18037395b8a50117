"""One comparison a directory at a time."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold the lock of a comparison's directory; give its file descriptor.

    A run inherits the descriptor and so holds the lock as well: should the comparison be killed,
    no other one trains in the run's directory before the run has ended.

    Raises:
        ValueError: another comparison, or a run that one left behind, holds it.
    """
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{root} is in use by another comparison, or by a run that a killed one left "
                "behind; wait for its end, or give another --work-dir"
            ) from None
        yield file.fileno()
