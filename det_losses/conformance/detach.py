"""What a loss holds constant in its gradient: the values that ``detach`` returned."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor

_DETACH = torch.Tensor.detach


@contextmanager
def recorded() -> Iterator[list[Tensor]]:
    """Collect what ``detach`` returns for tensors that depend on the prediction, in order."""
    values: list[Tensor] = []

    def detach(tensor: Tensor) -> Tensor:
        value = _DETACH(tensor)
        if tensor.requires_grad:
            values.append(value.clone())
        return value

    with _replaced(detach):
        yield values


@contextmanager
def replayed(values: list[Tensor]) -> Iterator[None]:
    """Let ``detach`` return the recorded values in their order: they stay as they were."""
    rest = iter(values)

    def detach(tensor: Tensor) -> Tensor:
        return next(rest).clone() if tensor.requires_grad else _DETACH(tensor)

    with _replaced(detach):
        yield


@contextmanager
def _replaced(detach: object) -> Iterator[None]:
    with patch.object(torch.Tensor, "detach", detach), patch.object(torch, "detach", detach):
        yield
