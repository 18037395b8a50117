"""A model that is used and afterwards is what it was."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from det_losses.engine.active_losses import losses_of

_INTERNAL = frozenset(vars(nn.Module()))  # what a module is made of, not what a loss keeps


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Give a model back with the modes, buffers and state of losses that it had.

    Buffers stay the same tensors. Of a loss every attribute comes back, counters as well as
    generators of its own.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [{key: (b, cloned(b)) for key, b in module._buffers.items()} for module in modules]
    shared = chain(modules, model.parameters(), model.buffers())
    memo = {id(part): part for part in shared}  # what a loss refers to is not its own
    losses = [part for loss in losses_of(model).values() for part in loss.modules()]
    attributes = [
        {key: _copied(value, memo) for key, value in vars(loss).items() if key not in _INTERNAL}
        for loss in losses
    ]
    try:
        yield
    finally:
        for module, mode, saved in zip(modules, modes, buffers, strict=True):
            module.training = mode
            module._buffers.clear()
            module._buffers.update({key: _restored(*pair) for key, pair in saved.items()})
        for loss, saved in zip(losses, attributes, strict=True):
            for key in vars(loss).keys() - _INTERNAL:
                del vars(loss)[key]
            vars(loss).update(saved)


def cloned(tensor: Tensor | None) -> Tensor | None:
    """Return a copy of a tensor or parameter, outside any graph."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach().clone(), tensor.requires_grad)
    return None if tensor is None else tensor.detach().clone()


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(value, dict(memo))
    except (RuntimeError, TypeError):  # a result kept with its graph, a lock: no state of a loss
        return value


def _restored(tensor: Tensor | None, value: Tensor | None) -> Tensor | None:
    if tensor is not None:
        with torch.no_grad():
            tensor.copy_(value)
    return tensor
