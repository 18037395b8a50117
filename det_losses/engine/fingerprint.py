"""Hashes that say what a run was: the loss's configuration and code, the initial weights."""

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from det_losses import boxes, tensors
from det_losses.losses import Loss

# What box losses compute with, whether their own module names it or not.
_ARITHMETIC = (boxes.__name__, tensors.__name__)


def weights_hash(model: nn.Module) -> str:
    """Return the sha256 of a model's state_dict: names, dtypes, shapes and bytes.

    The state of losses (``losses.*``) is left out, so that detectors which differ in their losses
    alone compare equal.

    Args:
        model: a model, or its DDP wrapper.
    """
    model = getattr(model, "module", model)
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor) and not name.startswith("losses."):
            value = value.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def loss_hash(loss: nn.Module) -> str:
    """Return the sha256 of a loss's configuration and code; equal in every process.

    Configuration: type and all parameters, those of nested losses included. Code: the source of the
    modules that define the loss's classes and their bases, of all modules of the same packages that
    these take functions or classes from, and of the box arithmetic. torch and numpy are left out.
    """
    digest = hashlib.sha256(configuration(loss).encode())
    for name in sorted({name for part in loss.modules() for name in _modules_of(type(part))}):
        digest.update(f"\n# {name}\n{_source(name)}".encode())
    return digest.hexdigest()


def configuration(loss: nn.Module) -> str:
    """Return type and parameters of a loss as canonical JSON: sorted keys, no addresses."""
    return json.dumps(_plain(loss), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, nn.Module):
        parameters = value.params() if isinstance(value, Loss) else repr(value)
        return {"type": _name(type(value)), "parameters": _plain(parameters)}
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if isinstance(value, float):
        return repr(value)  # JSON has no NaN and no infinity
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_plain(item), sort_keys=True) for item in value)
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return _plain(value.tolist())
    if inspect.isclass(value) or inspect.isroutine(value):
        return _name(value)
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _modules_of(cls: type) -> set[str]:
    """Return the names of the modules that hold a class's code."""
    own = {base.__module__ for base in cls.__mro__}
    packages = {name.split(".")[0] for name in own} - {"builtins", "torch"}
    found: set[str] = set()
    waiting = {name for name in own if name.split(".")[0] in packages} | set(_ARITHMETIC)
    while waiting:
        name = waiting.pop()
        found.add(name)
        used = _used_by(sys.modules[name]) if name in sys.modules else ()
        waiting |= {other for other in used if other.split(".")[0] in packages} - found
    return found


def _used_by(module: ModuleType) -> Iterator[str]:
    """Yield the names of the modules whose functions, classes or selves a module names."""
    for value in vars(module).values():
        if inspect.ismodule(value):
            yield value.__name__
        elif inspect.isclass(value) or inspect.isroutine(value):
            yield str(value.__module__)


def _source(name: str) -> str:
    try:
        return inspect.getsource(sys.modules[name])
    except (KeyError, OSError, TypeError):  # typed in at a prompt, or compiled
        return ""
