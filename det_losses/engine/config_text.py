"""A config as the text of a config file.

mmengine's own ``Config.pretty_text`` formats with yapf, which takes seconds, at each start and at
each checkpoint of a run.
"""

import inspect
import keyword
import math
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

_WIDTH = 100


class FastTextConfig(Config):
    """mmengine's Config whose ``pretty_text`` takes milliseconds."""

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
        cfg: the config; its keys are written in their order.
    """
    return "".join(f"{key} = {_source(value, 0)}\n" for key, value in cfg.to_dict().items())


def _source(value: Any, indent: int) -> str:
    """Return a value as source: on one line if it fits, else one item a line."""
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
    """Return the items of ``dict(key=value)``, or of ``{key: value}`` where a key needs that."""
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
