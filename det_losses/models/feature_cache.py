"""Outputs of the frozen first layers of a backbone, kept for images that are trained on again."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models._utils import IntermediateLayerGetter

from det_losses.tensors import is_readable

Layer = Callable[[Tensor], Tensor]
_RANDOM = ("Drop", "StochasticDepth", "RReLU")  # how the names of random layers begin


class FeatureCache:
    """The first layers of a body, whose outputs are kept as long as they depend on the image alone.

    These are the layers up to the first one that is trained, random, or a batch norm of the batch.
    An image is recognised by its normalised and padded values, so any augmentation is allowed; only
    what repeats, such as a horizontal flip, is found again. The images of a batch that are not
    known are computed together, and a single one twice: some kernels of torch give other bits for
    one image. A batch of one image is left to the body. So the bits are those of the body for
    EfficientNet-Lite, ResNet and MobileNetV3 in batches of less than 16 images, as far as tried.
    Other kernels depend on the number of images, and the numbers are equal to rounding.

    It has no effect on other bodies than those of :func:`layers_of`, and none on one that is
    compiled or has hooks or checkpoints of gradients. Weights must not be changed through
    ``.data``, which leaves no trace.

    Args:
        mebibytes: the largest size of the features that are kept. When it is reached, no others
            are added.

    Attributes:
        size: of the features that are kept, in MiB.
    """

    def __init__(self, mebibytes: float) -> None:
        self.mebibytes = mebibytes
        self.size = 0.0
        self._features: dict[bytes, list[Tensor]] = {}
        self._weights: list[Tensor] = []
        self._state: list[Any] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "FeatureCache":
        return FeatureCache(self.mebibytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureCache, (self.mebibytes,)

    def features(self, body: nn.Module, images: Tensor) -> list[Tensor] | dict[str, Tensor]:
        """Return the features of a body, in a training."""
        known = layers_of(body) if len(images) > 1 and _can_keep(images) else None
        if known is None:
            return body(images)
        layers, returned = known
        frozen = next((i for i, each in enumerate(layers) if _changes(each)), len(layers))
        weights = [tensor for layer in layers[:frozen] for tensor in _tensors(layer)]
        if not weights:
            return body(images)
        self._forget_if_changed(weights)
        kept = sorted({*(index for index in returned if index < frozen), frozen - 1})
        outputs = dict(zip(kept, self._outputs(layers[:frozen], kept, images), strict=True))
        x = outputs[frozen - 1]
        for index in range(frozen, len(layers)):
            outputs[index] = x = layers[index](x)
        return [outputs[index] for index in returned]

    def _outputs(
        self, layers: Sequence[Layer], kept: Sequence[int], images: Tensor
    ) -> list[Tensor]:
        """Return the outputs of some layers."""
        kind = str((images.dtype, images.shape[1:], images.stride()[1:], kept)).encode()
        rows = images.contiguous().view(torch.uint8).numpy()
        keys = [hashlib.sha256(row).digest() + kind for row in rows]
        missing = [row for row, key in enumerate(keys) if key not in self._features]
        new = {}
        if missing:
            together = missing if len(missing) > 1 else missing * 2
            x = images if len(missing) == len(images) else images[together]
            computed = zip(*(each.split(1) for each in _run(layers, kept, x)), strict=True)
            new = {keys[row]: each for row, each in zip(missing, computed, strict=False)}
        features = [new[key] if key in new else self._features[key] for key in keys]
        outputs = [torch.cat(each) for each in zip(*features, strict=True)]
        for key, each in new.items():
            self._keep(key, each)
        return outputs

    def _keep(self, key: bytes, features: Sequence[Tensor]) -> None:
        size = sum(each.nbytes for each in features) / 2**20
        if self.size + size <= self.mebibytes:
            self._features[key] = [each.clone() for each in features]
            self.size += size

    def _forget_if_changed(self, weights: list[Tensor]) -> None:
        """Forget all features if other weights, or another precision, would compute them now."""
        state = [(each.data_ptr(), each._version) for each in weights]
        autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
        if [autocast, *state] != self._state:
            self._features.clear()
            self.size = 0.0
        self._weights, self._state = weights, [autocast, *state]  # no address is used again


@torch.no_grad()
def _run(layers: Sequence[Layer], kept: Sequence[int], x: Tensor) -> list[Tensor]:
    """Return the outputs of some layers."""
    outputs = []
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in kept:
            outputs.append(x)
    return outputs


def _can_keep(images: Tensor) -> bool:
    return (
        is_readable(images)
        and not images.requires_grad
        and forward_ad._current_level < 0
        and not torch._C._len_torch_dispatch_stack()
    )


def _changes(layer: Layer) -> bool:
    """Return whether the output depends on more than the image."""
    if not isinstance(layer, nn.Module):
        return False
    return any(each.requires_grad for each in layer.parameters()) or any(
        each.training and (isinstance(each, _BatchNorm) or type(each).__name__.startswith(_RANDOM))
        for each in layer.modules()
    )


def _tensors(layer: Layer) -> list[Tensor]:
    if not isinstance(layer, nn.Module):
        return []
    return [*layer.parameters(), *layer.buffers()]


def layers_of(body: nn.Module) -> tuple[list[Layer], list[int]] | None:
    """Return the layers of a body and, in ascending order, those whose outputs it returns.

    None stands for a body whose layers are not known: the bodies of ResNetFPN, MobileNetV3FPN,
    EfficientNetLite0FPN and of timm's EfficientNets are.
    """
    model = getattr(body, "model", None)
    modules = [each for each in (body, model) if isinstance(each, nn.Module)]
    if any(each._forward_hooks or each._forward_pre_hooks for each in modules):
        return None
    if any(each._compiled_call_impl for each in modules):
        return None
    if type(body) is IntermediateLayerGetter:
        names = list(body)
        return list(body.values()), sorted(names.index(name) for name in body.return_layers)
    # timm's class applies its children one after the other; the index of a feature is that of its
    # stage, where 0 is the stem.
    names = type(body).__name__, type(model).__name__
    if names == ("_SelectedFeatures", "EfficientNetFeatures"):
        if model.feature_hooks is not None or model.grad_checkpointing:
            return None
        layers = [body.in_format, model.conv_stem, model.bn1, *model.blocks]
        by_index = [2 + stage for stage, _ in sorted(model._stage_out_idx.items())]
        return layers, [by_index[index] for index in body.indices]
    return None
