"""Normalisation layers by name."""

from collections.abc import Callable
from functools import partial

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

MAX_GROUPS = 32  # 1803.08494, Table 3


def _group_norm(channels: int) -> nn.GroupNorm:
    groups = next(g for g in range(min(MAX_GROUPS, channels), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def norm_layer(name: str | None, eps: float | None = None) -> Callable[[int], nn.Module] | None:
    """Return what builds a norm layer for a number of channels; None stays None.

    Args:
        name: ``"BN"``, ``"FrozenBN"`` (affine and statistics constant), ``"GN"`` (32 groups, or
            the most that divide the channels), or None.
        eps: another epsilon than the layer's own (not for GN).

    Raises:
        ValueError: unknown name.
    """
    layers = {None: None, "BN": nn.BatchNorm2d, "FrozenBN": FrozenBatchNorm2d, "GN": _group_norm}
    if name not in layers:
        raise ValueError(f"norm must be one of 'BN', 'FrozenBN', 'GN' or None, got {name!r}")
    if eps is None or name in (None, "GN"):
        return layers[name]
    return partial(layers[name], eps=eps)
