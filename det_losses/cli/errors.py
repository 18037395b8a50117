"""What a user can cause is one line and exit status 2; a bug keeps its traceback."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

_EXPECTED = (ValueError, TypeError, KeyError, OSError, SyntaxError, ImportError)


@contextmanager
def user_errors() -> Iterator[None]:
    """Print an error that some check raised as ``error: ...`` and leave with exit status 2.

    For everything before training. An exception that no ``raise`` statement threw (a missing key,
    a None without attributes) is a bug of ours and goes on with its traceback.

    Raises:
        SystemExit: with status 2.
    """
    try:
        yield
    except _EXPECTED as error:
        if not _is_deliberate(error):
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        raise SystemExit(2) from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end a tool in one line.

    Raises:
        SystemExit: with status 130.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _is_deliberate(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.filename is not None:
        return True  # a path of the user's: open() and the like
    last = traceback.extract_tb(error.__traceback__)[-1]
    # mmengine calls a class with the config's arguments: a wrong one is a TypeError there.
    called = isinstance(error, TypeError) and "mmengine" in last.filename
    return called or not last.line or last.line.startswith("raise")


def _message(error: BaseException) -> str:
    if type(error) is KeyError and error.args:
        return str(error.args[0])
    return str(error) or type(error).__name__
