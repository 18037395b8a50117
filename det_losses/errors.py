"""Errors that a user can fix. Any other exception is a bug and keeps its traceback."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

_NEAR = 0.6  # similarity of a suggested name, 0 to 1


class UserError(Exception):
    """The base of all errors whose message tells the user what to change.

    Command-line tools print the message as ``error: ...`` and exit with status 2. Each subclass is
    also a subclass of the builtin exception that Python code would expect.

    Attributes:
        key: the config key that the message is about, such as ``"model.backbone"``; it precedes the
            message.
    """

    key = ""

    def __str__(self) -> str:
        message = Exception.__str__(self)
        return f"{self.key}: {message}" if self.key else message


@contextlib.contextmanager
def located(key: str) -> Iterator[None]:
    """Put a config key in front of the key of a UserError; an empty ``key`` changes nothing."""
    try:
        yield
    except UserError as error:
        error.key = ".".join(filter(None, (key, error.key)))
        raise


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


def one_line(text: object, limit: int = 200) -> str:
    """Return a text on one line, cut off after ``limit`` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[: limit - 4]} ..."


def counted(count: int, noun: str) -> str:
    """Return a count with its noun in the singular or plural.

    >>> counted(1, "class"), counted(2, "class"), counted(0, "box"), counted(3, "run")
    ('1 class', '2 classes', '0 boxes', '3 runs')
    """
    ending = "" if count == 1 else "es" if noun[-1] in "sx" else "s"
    return f"{count} {noun}{ending}"


_SINGULAR = {
    "have": "has",
    "are": "is",
    "reach": "reaches",
    "repeat": "repeats",
    "their": "its",
    "crowds": "a crowd",
}


def agreed(count: int, sentence: str) -> str:
    """Return a sentence about ``count`` things in the singular or plural, up to a colon.

    >>> agreed(1, "have no width and are left out"), agreed(2, "are crowds")
    ('has no width and is left out', 'are crowds')
    """
    if count != 1:
        return sentence
    first, colon, rest = sentence.partition(":")
    words = rf"\b({'|'.join(_SINGULAR)})\b"
    return re.sub(words, lambda word: _SINGULAR[word[0]], first) + colon + rest


def examples(texts: Sequence[str], limit: int = 3) -> str:
    """Return the first texts of a list; dots stand for the others.

    >>> examples(["a", "b"]), examples(["a", "b", "c", "d"])
    ('a, b', 'a, b, c, ...')
    """
    return ", ".join([*texts[:limit], *(["..."] if len(texts) > limit else [])])


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a hint at the nearest of the known names, in any case of letters.

    Args:
        name: the unknown name.
        known: the names that would be accepted.
        otherwise: the hint if none is near.

    Example:
        >>> did_you_mean("giuloss", ["GIoULoss", "L1Loss"])
        "Did you mean 'GIoULoss'?"
        >>> did_you_mean("smooth-l1", ["SmoothL1Loss", "L1Loss"])
        "Did you mean 'SmoothL1Loss'?"
    """
    known = list(known)
    if same := [each for each in known if _bare(each) == _bare(name)]:
        return f"Did you mean {' or '.join(map(repr, same[:3]))}?"
    ratio = {
        each: difflib.SequenceMatcher(None, each.lower(), str(name).lower()).ratio()
        for each in known
    }
    best = max(ratio.values(), default=0)
    if best < _NEAR:
        return otherwise
    near = sorted((each for each in ratio if ratio[each] > 0.95 * best), key=lambda x: -ratio[x])
    return f"Did you mean {' or '.join(map(repr, near[:3]))}?"


def _bare(name: str) -> str:
    """Return a name in lower case without hyphens and the like, and without a final "loss"."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower()).removesuffix("loss")


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
