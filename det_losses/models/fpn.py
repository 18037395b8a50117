"""Common parts of all backbones: feature pyramid, norm layers, frozen stages."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Dict  # noqa: UP035

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from det_losses.errors import InputError
from det_losses.models.feature_cache import FeatureCache
from det_losses.signatures import parameters

EXTRA_LEVELS = {"pool": ("pool",), "p6p7": ("p6", "p7"), None: ()}
MAX_GROUPS = 32  # 1803.08494, Table 3


class FPNBackbone(nn.Module):
    """A backbone with a feature pyramid (Lin et al., 1612.03144, 2017).

    The keys of its state_dict are those of torchvision's ``BackboneWithFPN``.

    Args:
        body: returns feature maps of decreasing resolution, as a list or a dict.
        in_channels: channels of each feature map.
        out_channels: channels of every pyramid level.
        extra_levels: ``"pool"`` (Faster R-CNN: one more level by max pooling), ``"p6p7"``
            (RetinaNet: two more by strided convolutions) or None.
        fpn_norm: normalisation of the pyramid's convolutions: None, ``"GN"`` or ``"BN"``.
        feature_cache_mb: in a training on a CPU, keep the features of frozen stages up to this
            size, for images that come again; 0: do not. See
            :class:`~det_losses.models.feature_cache.FeatureCache`, which has no effect on some
            backbones.

    Attributes:
        level_names: the names of the feature maps that ``forward`` returns, in order.
        image_mean, image_std: normalisation that the body's weights were trained with; None:
            torchvision's default, that of ImageNet.

    Raises:
        InputError: unknown ``extra_levels``, ``out_channels`` below 1, or a negative
            ``feature_cache_mb``.
    """

    image_mean: list[float] | None = None
    image_std: list[float] | None = None

    @classmethod
    def further_parameters(cls) -> dict[str, inspect.Parameter]:
        """Return the parameters that subclasses accept as ``**fpn``, by name."""
        own, _ = parameters(FPNBackbone)
        return {name: each for name, each in own.items() if each.default is not each.empty}

    def __init__(
        self,
        body: nn.Module,
        in_channels: Sequence[int],
        out_channels: int = 256,
        extra_levels: str | None = "pool",
        fpn_norm: str | None = None,
        feature_cache_mb: float = 0,
    ) -> None:
        super().__init__()
        if extra_levels not in EXTRA_LEVELS:
            raise InputError(f"extra_levels must be 'pool', 'p6p7' or None, got {extra_levels!r}")
        if not feature_cache_mb >= 0:
            raise InputError(f"feature_cache_mb must be at least 0, got {feature_cache_mb}")
        if out_channels < 1:
            raise InputError(f"out_channels must be at least 1, got {out_channels}")
        extra: ExtraFPNBlock | None = None
        if extra_levels:
            p6p7 = extra_levels == "p6p7"
            extra = LastLevelP6P7(out_channels, out_channels) if p6p7 else LastLevelMaxPool()
        self.body = body
        self.fpn = FeaturePyramidNetwork(
            list(in_channels), out_channels, extra, norm_layer(fpn_norm)
        )
        self.out_channels = out_channels
        self.cache = FeatureCache(feature_cache_mb) if feature_cache_mb else None
        self.level_names = [*map(str, range(len(in_channels))), *EXTRA_LEVELS[extra_levels]]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the levels by name, highest resolution first."""
        features = self.body(images) if torch.jit.is_scripting() else self._features(images)
        levels: dict[str, Tensor] = {}
        # torch.jit.script compiles this, but not `isinstance(features, dict)`.
        if torch.jit.isinstance(features, Dict[str, Tensor]):  # noqa: UP006
            for level in features.values():
                levels[str(len(levels))] = level
        else:
            for level in features:
                levels[str(len(levels))] = level
        return self.fpn(levels)

    @torch.jit.unused
    def _features(self, images: Tensor) -> list[Tensor] | dict[str, Tensor]:
        if self.cache is None or not self.training:
            return self.body(images)
        return self.cache.features(self.body, images)


def freeze_stages(body: nn.Module, stages: Sequence[str], frozen_stages: int) -> None:
    """Freeze the stem and the first ``frozen_stages`` stages; 0 freezes nothing.

    Args:
        body: the network.
        stages: names of the submodules at the end of each stage, in order.
        frozen_stages: number of stages to freeze.

    Raises:
        InputError: there are fewer stages.
    """
    if not 0 <= frozen_stages <= len(stages):
        raise InputError(f"frozen_stages must be 0 to {len(stages)}, got {frozen_stages}")
    if frozen_stages == 0:
        return
    names = [name for name, _ in body.named_parameters()]
    end = f"{stages[frozen_stages - 1]}."
    last = max(i for i, name in enumerate(names) if name.startswith(end))
    for name in names[: last + 1]:
        body.get_parameter(name).requires_grad_(False)


def feature_channels(body: nn.Module, size: int = 64) -> list[int]:
    """Return the channels of each feature map that ``body`` returns."""
    was_training = body.training
    with torch.no_grad():
        features = body.eval()(torch.zeros(1, 3, size, size))
    body.train(was_training)
    return [x.shape[1] for x in (features.values() if isinstance(features, dict) else features)]


def _group_norm(channels: int) -> nn.GroupNorm:
    groups = next(g for g in range(min(MAX_GROUPS, channels), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def norm_layer(name: str | None, eps: float | None = None) -> Callable[[int], nn.Module] | None:
    """Return the constructor of a norm layer, which takes the number of channels; or None.

    Args:
        name: ``"BN"``, ``"FrozenBN"`` (constant affine parameters and statistics), ``"GN"`` (32
            groups, or the largest number below that divides the channels), or None.
        eps: replaces the layer's default epsilon (not for GN).

    Raises:
        InputError: unknown name.
    """
    layers = {None: None, "BN": nn.BatchNorm2d, "FrozenBN": FrozenBatchNorm2d, "GN": _group_norm}
    if name not in layers:
        raise InputError(f"norm must be one of 'BN', 'FrozenBN', 'GN' or None, got {name!r}")
    if eps is None or name in (None, "GN"):
        return layers[name]
    return partial(layers[name], eps=eps)
