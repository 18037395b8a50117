"""Call a tool from Python: keyword arguments become its options, so one code checks both."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from det_losses.errors import InputTypeError, UserError

_OPTION = re.compile(r"(?:argument )?(?<![\w-])(--[a-z][a-z-]*)")


def command_line(parser: argparse.ArgumentParser, given: Mapping[str, Any]) -> list[str]:
    """Return the arguments of the command that has these options, without defaults.

    Args:
        parser: the parser of the tool.
        given: name of each option, with underscores -> its value. A loss can be a config, and an
            option that takes several values can have a single one.

    Raises:
        InputTypeError: a value has a type that no option has.
    """
    positional, options = [], []
    for action in parser._actions:
        value = given.get(action.dest)
        if value is None:
            continue
        if action.nargs == 0:
            if not isinstance(value, bool):
                raise InputTypeError(f"{action.dest}: must be True or False, got {value!r:.80}")
            options += [action.option_strings[0]] if value else []
            continue
        several = [*value] if action.nargs == "+" and _is_iterable(value) else [value]
        if several in (action.default, [action.default]):
            continue
        texts = [_text(action.dest, each) for each in several]
        if action.option_strings:
            options += [action.option_strings[0], *texts]
        else:
            positional += texts
    return [*positional, *options]


def _is_iterable(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, (str, os.PathLike, Mapping))


def _text(name: str, value: Any) -> str:
    from det_losses.losses.core.text import loss_text

    if isinstance(value, Mapping) and "type" in value:
        return loss_text(value)
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise InputTypeError(
            f"{name}: must be a text, a path or a number, got {type(value).__name__} {value!r:.80}"
        )
    return str(value)


def key_values(name: str, entries: Mapping[str, Any]) -> list[str]:
    """Return ``key=value`` texts of an option, which the tool reads back as the same values.

    >>> key_values("cfg_options", {"train_cfg.max_epochs": 2, "work_dir": "a"})
    ['train_cfg.max_epochs=2', "work_dir='a'"]

    Raises:
        InputTypeError: a value is neither a number, a text or a path, nor a list or dict of these.
    """
    from det_losses.losses.core.text import parse_value

    texts = []
    for key, value in entries.items():
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif hasattr(value, "item"):  # a number of numpy
            value = value.item()
        if parse_value(repr(value)) != value:
            raise InputTypeError(
                f"{name}: {key}: cannot be written as text: {type(value).__name__} {value!r:.80}"
            )
        texts.append(f"{key}={value!r}")
    return texts


@contextmanager
def keyword_terms(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Let messages of errors that a user can fix name keyword arguments instead of options."""
    try:
        yield
    except UserError as error:
        error.args = (_as_keywords(parser, str(error.args[0])), *error.args[1:])
        raise


def _as_keywords(parser: argparse.ArgumentParser, message: str) -> str:
    """Return a message in which the options of the parser are keyword arguments."""
    names = {option: a.dest for a in parser._actions for option in a.option_strings}
    return _OPTION.sub(lambda found: names.get(found[1], found[0]), message)
