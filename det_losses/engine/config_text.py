"""Configs as text: written fast, and read back without running it."""

import ast
import inspect
import keyword
import math
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from det_losses.errors import InputError, one_line

_WIDTH = 100  # characters per line


class FastTextConfig(Config):
    """mmengine's Config whose ``pretty_text`` takes milliseconds.

    mmengine formats it with yapf, which can take seconds, at the start and at each checkpoint.
    """

    @classmethod
    def of(cls, cfg: Config) -> "FastTextConfig":
        """Return a copy that shares the config's entries."""
        fast = cls.__new__(cls)
        fast.__setstate__(cfg.__getstate__())
        return fast

    @property
    def pretty_text(self) -> str:
        """The text of a config file; see :func:`config_text`."""
        return config_text(self)


def config_text(cfg: Config) -> str:
    """Return Python source that ``Config.fromfile`` reads back as an equal config.

    Classes and functions become the dotted path that mmengine's registries build from.

    Args:
        cfg: the config; the order of its keys is kept.
    """
    return "".join(f"{key} = {_source(value, 0)}\n" for key, value in cfg.to_dict().items())


def _source(value: Any, indent: int) -> str:
    """Return a value as source: on one line if it fits, else with one item per line."""
    if isinstance(value, Mapping):
        opening, items, closing = _items_of_dict(value, indent + 4)
    elif isinstance(value, (list, tuple)):
        opening, closing = "[]" if isinstance(value, list) else "()"
        items = [_source(item, indent + 4) for item in value]
        if isinstance(value, tuple) and len(items) == 1:
            closing = ",)"
    else:
        return _scalar(value)
    line = f"{opening}{', '.join(items)}{closing}"
    if len(line) + indent <= _WIDTH and "\n" not in line:
        return line
    inner = "".join(f"{' ' * (indent + 4)}{item},\n" for item in items)
    return f"{opening}\n{inner}{' ' * indent}{closing[-1]}"


def _items_of_dict(value: Mapping[Any, Any], indent: int) -> tuple[str, list[str], str]:
    """Return the parts of ``dict(key=value)``, or of ``{key: value}`` if a key requires it."""
    named = all(
        isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value
    )
    if named:
        return "dict(", [f"{k}={_source(v, indent)}" for k, v in value.items()], ")"
    items = [f"{_source(k, indent)}: {_source(v, indent)}" for k, v in value.items()]
    return "{", items, "}"


def _scalar(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if inspect.isclass(value) or inspect.isroutine(value):
        return repr(f"{value.__module__}.{value.__qualname__}")
    text = repr(value)
    # mmengine substitutes {{ variables }} in the text of a config file.
    return text.replace("{{", r"{\x7b") if isinstance(value, str) else text


def parse_config_text(text: str) -> Config:
    """Return the config of :func:`config_text` without running it as Python.

    A checkpoint holds such a text. Executing it would run any code that a downloaded file contains.

    Raises:
        InputError: it contains more than assignments of plain values.
    """
    try:
        body = ast.parse(text).body
        return Config({node.targets[0].id: _value(node.value) for node in body})
    except (SyntaxError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"not a config of plain values: {one_line(error)}") from error


def _value(node: ast.expr) -> Any:
    """Return the value of a literal, of ``dict(key=value)`` or of ``float("nan")``."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "dict" and not node.args:
        return {each.arg: _value(each.value) for each in node.keywords}
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "float":
        return float(ast.literal_eval(node.args[0]))
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) for key in node.keys]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, (ast.List, ast.Tuple)):
        items = map(_value, node.elts)
        return list(items) if isinstance(node, ast.List) else tuple(items)
    return ast.literal_eval(node)
