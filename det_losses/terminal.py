"""Text for a terminal: nothing in it controls the terminal, and an error is a few lines."""

import re

_LONGEST = 1000  # characters of an error message

# C0 and C1 controls except newline and tab; marks that reverse the direction of text; surrogates.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return text with escape sequences in place of characters that control a terminal.

    Names of classes, files and variants come from files of others.

    >>> print(printable("red\x1b[2J apple"))
    red\x1b[2J apple
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def short(text: str, longest: int = _LONGEST) -> str:
    """Return a text with at most ``longest`` characters: its middle is left out.

    >>> short("0123456789abcdef", 9)
    '0123 ... cdef'
    """
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} ... {text[-half:]}"
