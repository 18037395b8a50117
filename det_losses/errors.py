"""Errors that a user can fix. Any other exception is a bug and keeps its traceback."""

import re


class UserError(Exception):
    """The base of all errors whose message tells the user what to change.

    Command-line tools print the message as ``error: ...`` and exit with status 2. Each subclass is
    also a subclass of the builtin exception that Python code would expect.
    """


class InputError(UserError, ValueError):
    """An argument, a config entry or a file has a value that cannot be used."""


class InputTypeError(UserError, TypeError):
    """An argument is missing, unknown or of the wrong type."""


class MissingFileError(UserError, FileNotFoundError):
    """A file that the user named does not exist."""


class ExistingFileError(UserError, FileExistsError):
    """A file exists and would be overwritten."""


class NotRegisteredError(UserError, KeyError):
    """A name is not in the registry."""

    __str__ = Exception.__str__  # KeyError quotes its message


_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Escape what a terminal would execute: control characters except newline and tab.

    Also marks that change the direction of text, and halves of surrogate pairs, which cannot be
    encoded.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)
