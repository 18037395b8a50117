"""Options of a tool as a call: from the values of Python to texts, checked values and a command.

An option has one name: ``--fork-at`` on the command line is ``fork_at`` in Python. A value is
checked as the text of the command line in both.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from det_losses.errors import InputError, InputTypeError, MissingFileError, UserError
from det_losses.options.checks import Check


@dataclass(frozen=True)
class Kind:
    """What an option takes; metadata of its field in a dataclass of options.

    Attributes:
        flag: the option on the command line; None: ``--`` and its name.
        several: whether it takes several values.
        switch: whether it takes no value.
        check: turns the text of a value into the value, or raises InputError.
    """

    flag: str | None = None
    several: bool = False
    switch: bool = False
    check: Check = str

    def option(self, name: str) -> str:
        """Return the option on the command line."""
        return self.flag or f"--{name.replace('_', '-')}"


def one(default: Any = None, check: Check = str) -> Any:
    """Return the field of an option with one value."""
    return field(default=default, metadata={"kind": Kind(check=check)})


def several(default: Any = (), check: Check = str, flag: str | None = None) -> Any:
    """Return the field of an option with one or more values."""
    return field(default=default, metadata={"kind": Kind(flag, several=True, check=check)})


def switch() -> Any:
    """Return the field of an option without a value."""
    return field(default=False, metadata={"kind": Kind(switch=True)})


def divide_data(options: dict[str, Any]) -> None:
    """Set train_ann and val_ann to data; with folds, which are of the training data, only one.

    Args:
        options: the options of a tool; without train_ann it reads validation data only.

    Raises:
        InputError: one of them or its images are given, or the data is a file with one split.
        MissingFileError: there is no such file or folder.
    """
    data = options.get("data")
    if data is None:
        return
    splits = [split for split in ("train", "val") if f"{split}_ann" in options]
    parts = [f"{split}_{what}" for split in splits for what in ("ann", "images")]
    if any(options[part] is not None for part in parts):
        names = ", ".join(f"--{part.replace('_', '-')}" for part in parts)
        raise InputError(f"--data gives all data; leave out {names}")
    if not Path(data).exists():
        raise MissingFileError(
            f"--data {data}: no such file or folder; expected a data.yaml (YOLO) or a folder "
            "(Pascal VOC)"
        )
    if Path(data).is_file() and Path(data).suffix.lower() not in (".yaml", ".yml"):
        raise InputError(
            f"--data {data}: expected a data.yaml (YOLO) or a folder (Pascal VOC); a file of "
            f"one split belongs to --{splits[-1]}-ann"
        )
    for split in splits:
        if split == "train" or not options.get("folds"):
            options[f"{split}_ann"] = [data]


def given_texts(
    kinds: Mapping[str, Kind], given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Return the values of a call as the texts of a command line, without defaults.

    Args:
        kinds: name -> what the option takes.
        given: name -> value. A loss can be a config, and an option that takes several values can
            have a single one.
        defaults: name -> default.

    Raises:
        InputTypeError: a value has a type that no option has.
    """
    texts = {}
    for name, kind in kinds.items():
        value = given.get(name)
        if value is None:
            continue
        if kind.switch:
            if not isinstance(value, bool):
                raise InputTypeError(f"{name}: must be True or False, got {value!r:.80}")
            if value:
                texts[name] = []
            continue
        values = [*value] if kind.several and _is_iterable(value) else [value]
        default = defaults.get(name)
        if values != ([*default] if kind.several and default is not None else [default]):
            texts[name] = [_text(name, each) for each in values]
    return texts


def checked(kinds: Mapping[str, Kind], texts: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the values of texts.

    Raises:
        InputError: a value that its option does not take; the message starts with its name.
    """
    values: dict[str, Any] = {}
    for name, each in texts.items():
        kind = kinds[name]
        if kind.several and not each:
            raise InputError(f"{name}: expected at least one argument")
        try:
            found = [kind.check(text) for text in each]
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        values[name] = True if kind.switch else found if kind.several else found[0]
    return values


def command(tool: str, kinds: Mapping[str, Kind], texts: Mapping[str, list[str]]) -> str:
    """Return the command of these texts, to which the first of the options is positional."""
    positional = next(iter(kinds))
    options = [
        word
        for name, each in texts.items()
        if name != positional
        for word in (kinds[name].option(name), *each)
    ]
    return shlex.join(["python", "-m", "det_losses", tool, *texts.get(positional, []), *options])


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
    """Return ``key=value`` texts of an option, which are read back as the same values.

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
def keyword_terms(kinds: Mapping[str, Kind]) -> Iterator[None]:
    """Let messages of errors that a user can fix name keyword arguments instead of options."""
    names = {kind.option(name): name for name, kind in kinds.items()}
    try:
        yield
    except UserError as error:
        message = re.sub(
            r"(?<![\w-])--[a-z][a-z-]*",
            lambda found: names.get(found[0], found[0]),
            str(error.args[0]),
        )
        error.args = (message, *error.args[1:])
        raise
