"""Differences between two configs, key by key."""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mmengine.config import Config

# Where a run is written, how it is started, which modules are imported, and the settings of a test:
# these do not change its result. Configs of version 0.1 also have a table of loss weights, which
# training does not read.
_IGNORED = (
    "work_dir", "launcher", "resume", "loss_weights", "custom_imports",
    "test_dataloader", "test_cfg", "test_evaluator",
)  # fmt: skip


def plain(cfg: Config | Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Return a config as plain JSON values, without the keys that do not change the result.

    Args:
        cfg: the config.
        without: further dotted keys to leave out.
    """
    content = cfg.to_dict() if isinstance(cfg, Config) else dict(cfg)
    content = json.loads(json.dumps(content, default=str))
    for key in (*_IGNORED, *without):
        *parents, last = key.split(".")
        inner = content
        for parent in parents:
            inner = inner.get(parent, {})
        inner.pop(last, None)
    return content


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Return lines such as ``train_cfg.max_epochs: 12 -> 24``; ``key`` is a common prefix."""
    return [f"{name}: {_value(a)} -> {_value(b)}" for name, a, b in _walk(key, old, new)]


def describe(lines: list[str], limit: int = 5) -> str:
    """Join the first lines, followed by the number of the remaining ones."""
    more = f" and {len(lines) - limit} more" if len(lines) > limit else ""
    return "; ".join(lines[:limit]) + more


_NONE = object()


def _value(value: Any) -> str:
    return "(none)" if value is _NONE else f"{value!r:.200}"


def _walk(prefix: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            name = f"{prefix}.{key}" if prefix else key
            yield from _walk(name, old.get(key, _NONE), new.get(key, _NONE))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _walk(f"{prefix}.{index}", a, b)
    elif old is _NONE or new is _NONE or old != new:
        yield prefix, old, new
