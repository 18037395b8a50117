"""Print errors that a user can fix as one line; keep the traceback of all others."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from det_losses.errors import UserError, printable

if TYPE_CHECKING:
    from mmengine.runner import Runner


@contextmanager
def user_errors() -> Iterator[None]:
    """Print an error that the user can fix as ``error: ...`` and exit with status 2.

    These are :class:`~det_losses.errors.UserError`, an OSError about a named file (missing, not
    readable), and a full disk. Any other exception is a bug and propagates with its traceback.

    Raises:
        SystemExit: with status 2.
    """
    try:
        yield
    except (UserError, OSError) as error:
        if not isinstance(error, UserError) and error.filename is None and not _is_full(error):
            raise
        print(f"error: {_shortened(printable(str(error)))}", file=sys.stderr)
        raise SystemExit(2) from None


def _is_full(error: BaseException) -> bool:
    """Return whether a disk or a quota is full, for which the system does not name the file."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _shortened(text: str, longest: int = 1000) -> str:
    """Return a text with about ``longest`` characters at most, without its middle.

    >>> _shortened("0123456789abcdef", 9)
    '0123 ... cdef'
    """
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


@contextmanager
def logged_errors(runner: Runner, what: str) -> Iterator[None]:
    """Log an error that ends a run and the path of the log, for a bug with its traceback.

    Args:
        runner: writes the log.
        what: the activity that failed; the message starts with it.

    Raises:
        SystemExit: with status 1.
    """
    try:
        yield
    except Exception as error:
        log = Path(runner.log_dir) / f"{runner.timestamp}.log"
        if isinstance(error, UserError) or _is_full(error):
            runner.logger.error(
                f"{what} failed, log: {log}\n{type(error).__name__}: {printable(str(error))}"
            )
        else:
            runner.logger.exception(f"{what} failed, log: {log}")
        raise SystemExit(1) from None
