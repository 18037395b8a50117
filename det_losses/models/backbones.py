"""Backbones by name: torchvision's ResNets and MobileNetV3, timm's models, and a small one."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock

from det_losses.models.fpn import FPNBackbone, feature_channels, freeze_stages
from det_losses.models.norms import norm_layer
from det_losses.models.weights import load_weights
from det_losses.registry import MODELS, find


def build_backbone(backbone: Mapping[str, Any] | nn.Module) -> nn.Module:
    """Build a registered backbone from its config; a module with ``out_channels`` is returned.

    Raises:
        ValueError: the config has no ``type``, or the module no ``out_channels``.
    """
    if isinstance(backbone, nn.Module):
        body = backbone
    else:
        if "type" not in backbone:
            raise ValueError(f"backbone needs a `type`, such as 'ResNetFPN'; got {dict(backbone)}")
        arguments = dict(backbone)
        body = find(MODELS, arguments.pop("type"))(**arguments)
    if not hasattr(body, "out_channels"):
        raise ValueError(f"backbone {type(body).__name__} has no attribute out_channels")
    return body


def _torchvision_model(
    family: str, name: str, weights: str | None, norm: str | None, eps: float | None = None
) -> Any:
    """Build a torchvision classifier; pretrained ones get frozen batch norm, others GroupNorm.

    GroupNorm: detectors are trained with few images at a time, too few for batch statistics.
    """
    if family not in name:
        raise ValueError(f"backbone {name!r}: expected a torchvision model with {family!r} in it")
    layer = norm_layer(norm or ("FrozenBN" if weights else "GN"), eps)
    try:
        model = torchvision.models.get_model(name, weights=None, norm_layer=layer)
        if weights is not None:
            known = torchvision.models.get_model_weights(name)
            short = weights.split(".")[-1]
            model.load_state_dict(
                load_weights(f"{known.__name__}.{short}" if short in known.__members__ else weights)
            )
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"backbone {name!r}, weights {weights!r}: {error}") from None
    return model


def _select(stages: Sequence[str], returned: Sequence[int]) -> dict[str, str]:
    if not returned or not set(returned) <= set(range(1, len(stages) + 1)):
        raise ValueError(f"returned_layers must lie in 1..{len(stages)}, got {list(returned)}")
    return {stages[layer - 1]: str(index) for index, layer in enumerate(returned)}


@MODELS.register_module()
class ResNetFPN(FPNBackbone):
    """Any ResNet of torchvision with an FPN.

    Args:
        name: ``"resnet18"``, ``"resnet50"``, ``"resnext50_32x4d"``, ...
        weights: None, a local file, or torchvision's name (``"IMAGENET1K_V1"``).
        returned_layers: which of the four stages go into the pyramid: (1, 2, 3, 4) for Faster
            R-CNN, (2, 3, 4) for RetinaNet.
        frozen_stages: the stem and so many stages stay constant; None: 1 with weights, else 0.
        norm: ``"FrozenBN"``, ``"BN"``, ``"GN"``; None: FrozenBN with weights, else GN.
        norm_eps: another epsilon of the (frozen) batch norm; torchvision's COCO_V1 weights of
            detectors were trained with 0.
        **fpn: ``out_channels``, ``extra_levels``, ``fpn_norm``; see FPNBackbone.
    """

    def __init__(
        self,
        name: str = "resnet50",
        *,
        weights: str | None = None,
        returned_layers: Sequence[int] = (1, 2, 3, 4),
        frozen_stages: int | None = None,
        norm: str | None = None,
        norm_eps: float | None = None,
        **fpn: Any,
    ) -> None:
        resnet = _torchvision_model("resne", name, weights, norm, norm_eps)
        stages = [f"layer{i}" for i in range(1, 5)]
        default = 0 if weights is None else 1
        freeze_stages(resnet, stages, default if frozen_stages is None else frozen_stages)
        body = IntermediateLayerGetter(resnet, _select(stages, returned_layers))
        super().__init__(body, feature_channels(body), **fpn)


@MODELS.register_module()
class MobileNetV3FPN(FPNBackbone):
    """MobileNetV3 of torchvision with an FPN.

    Args:
        name: ``"mobilenet_v3_large"`` or ``"mobilenet_v3_small"``.
        weights: None, a local file, or torchvision's name (``"IMAGENET1K_V1"``).
        returned_layers: which stages go into the pyramid, counted from 1 (stride 2); torchvision's
            detectors take the last two.
        frozen_stages: so many stages stay constant; None: 2 with weights, else 0.
        norm: as in ResNetFPN.
        **fpn: ``out_channels``, ``extra_levels``, ``fpn_norm``; see FPNBackbone.
    """

    def __init__(
        self,
        name: str = "mobilenet_v3_large",
        *,
        weights: str | None = None,
        returned_layers: Sequence[int] | None = None,
        frozen_stages: int | None = None,
        norm: str | None = None,
        **fpn: Any,
    ) -> None:
        features = _torchvision_model("mobilenet_v3", name, weights, norm).features
        # A stage ends before each strided block; torchvision marks those with `_is_cn`.
        strided = [i for i, block in enumerate(features) if getattr(block, "_is_cn", False)]
        stages = [str(i) for i in (0, *strided, len(features) - 1)]
        default = 0 if weights is None else 2
        freeze_stages(features, stages, default if frozen_stages is None else frozen_stages)
        returned = returned_layers or (len(stages) - 1, len(stages))
        body = IntermediateLayerGetter(features, _select(stages, returned))
        super().__init__(body, feature_channels(body), **fpn)


class _SmallBody(nn.Module):
    def __init__(self, widths: Sequence[int], norm: str) -> None:
        super().__init__()
        layer = norm_layer(norm)
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False),
            layer(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.ModuleList(
            _block(inside, outside, layer) for inside, outside in pairwise(widths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[1:]


def _block(inside: int, outside: int, layer: Any) -> BasicBlock:
    down = nn.Sequential(nn.Conv2d(inside, outside, 1, stride=2, bias=False), layer(outside))
    return BasicBlock(inside, outside, stride=2, downsample=down, norm_layer=layer)


@MODELS.register_module()
class SmallResNetFPN(FPNBackbone):
    """A ResNet of one basic block a stage with an FPN, for small images and no accelerator.

    Args:
        widths: channels of the stem (stride 2) and of each stage (strides 4, 8, ...); the stages
            from stride 8 on go into the pyramid.
        norm: ``"GN"`` or ``"BN"``.
        **fpn: ``out_channels``, ``extra_levels``, ``fpn_norm``; see FPNBackbone.
    """

    def __init__(
        self, widths: Sequence[int] = (24, 48, 96, 128, 160), *, norm: str = "GN", **fpn: Any
    ) -> None:
        super().__init__(_SmallBody(widths, norm), widths[2:], **fpn)
