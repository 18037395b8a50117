"""Outputs of the frozen first layers of a backbone, kept for images that are trained on again."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.models._utils import IntermediateLayerGetter

from det_losses.errors import InputError
from det_losses.tensors import is_traced

Layer = Callable[[Tensor], Tensor]


class FeatureCache:
    """A body whose frozen first layers compute the features of an image once.

    An image is recognised by its normalised and padded values, so any augmentation is allowed; only
    what repeats, such as a horizontal flip, is found again. The features are those of the body, bit
    by bit, as long as the kernels of a layer treat each image of a batch by itself: torch's on a
    CPU do for two or more images. So a single missing image is computed twice, and a batch of one
    image is left to the body.

    Args:
        layers: the layers of the body, which are applied one after the other.
        returned: the indices of the layers whose outputs are the features, in ascending order.
        megabytes: the largest size of the features that are kept. When it is reached, no others
            are added.

    Raises:
        InputError: a frozen layer depends on the batch or on random numbers.
    """

    def __init__(self, layers: Sequence[Layer], returned: Sequence[int], megabytes: float) -> None:
        self.layers, self.returned, self.megabytes = list(layers), list(returned), megabytes
        self.size = 0.0
        self._features: dict[bytes, list[Tensor]] = {}
        self._frozen, self._state = 0, ()
        self._update()
        frozen = [layer for layer in self.layers[: self._frozen] if isinstance(layer, nn.Module)]
        for module in (each for layer in frozen for each in layer.modules()):
            if isinstance(module, _BatchNorm):
                raise InputError(
                    "feature_cache_mb: the batch norms of frozen stages must be frozen too, with "
                    "norm='FrozenBN' or freeze_norm=True"
                )
            if isinstance(module, _DropoutNd) or type(module).__name__ == "DropPath":
                raise InputError("feature_cache_mb: the frozen stages have dropout")

    def __deepcopy__(self, memo: dict[int, Any]) -> "FeatureCache":
        return FeatureCache(copy.deepcopy(self.layers, memo), self.returned, self.megabytes)

    def __getstate__(self) -> dict[str, Any]:
        empty = FeatureCache(self.layers, self.returned, self.megabytes)
        return vars(empty).copy()

    def can_use(self, images: Tensor) -> bool:
        """Return whether the features of these images may be kept: on a CPU, not traced."""
        return images.is_cpu and len(images) > 1 and not images.requires_grad and not is_traced()

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the features that the body returns."""
        self._update()
        kept = sorted({*(i for i in self.returned if i < self._frozen), self._frozen - 1} - {-1})
        outputs = dict(zip(kept, self._found(images, kept), strict=True)) if kept else {}
        x = outputs.get(self._frozen - 1, images)
        for index in range(self._frozen, len(self.layers)):
            outputs[index] = x = self.layers[index](x)
        return [outputs[index] for index in self.returned]

    def _found(self, images: Tensor, kept: Sequence[int]) -> list[Tensor]:
        """Return the outputs of some frozen layers."""
        shape = str((images.dtype, *images.shape[1:])).encode()
        as_bytes = images.contiguous().view(torch.uint8).numpy()
        keys = [hashlib.sha1(each).digest() + shape for each in as_bytes]
        missing = [row for row, key in enumerate(keys) if key not in self._features]
        new: dict[bytes, list[Tensor]] = {}
        if missing:
            rows = missing if len(missing) > 1 else missing * 2
            outputs = self._computed(images[rows] if len(missing) < len(images) else images, kept)
            for place, row in enumerate(missing):
                new[keys[row]] = [each[place : place + 1].clone() for each in outputs]
            self._add(new)
        features = [new.get(key) or self._features[key] for key in keys]
        return [torch.cat(each) for each in zip(*features, strict=True)]

    @torch.no_grad()
    def _computed(self, x: Tensor, kept: Sequence[int]) -> list[Tensor]:
        outputs = []
        for index in range(self._frozen):
            x = self.layers[index](x)
            if index in kept:
                outputs.append(x)
        return outputs

    def _add(self, new: dict[bytes, list[Tensor]]) -> None:
        for key, features in new.items():
            size = sum(each.nbytes for each in features) / 2**20
            if self.size + size > self.megabytes:
                return
            self._features[key] = features
            self.size += size

    def _update(self) -> None:
        """Forget everything if the frozen layers have changed."""
        frozen, versions = 0, []
        for layer in self.layers:
            tensors = _tensors(layer)
            if any(each.requires_grad for each in tensors):
                break
            frozen += 1
            versions += [(id(each), each._version) for each in tensors]
        frozen = frozen if versions else 0
        state = (torch.is_autocast_enabled("cpu"), versions)
        if state != self._state:
            self._frozen, self._state = frozen, state
            self._features.clear()
            self.size = 0.0


def _tensors(layer: Layer) -> list[Tensor]:
    if not isinstance(layer, nn.Module):
        return []
    return [*layer.parameters(), *layer.buffers()]


def layers_of(body: nn.Module) -> tuple[list[Layer], list[int]]:
    """Return the layers of a body and the indices of those whose outputs it returns.

    Raises:
        InputError: they are not known for this body.
    """
    if isinstance(body, IntermediateLayerGetter):
        names = list(body)
        return list(body.values()), [names.index(name) for name in body.return_layers]
    model = getattr(body, "model", None)
    if type(model).__name__ == "EfficientNetFeatures" and model.feature_hooks is None:
        layers = [body.in_format, model.conv_stem, model.bn1, *model.blocks]
        by_index = [2 + stage for stage, _ in sorted(model._stage_out_idx.items())]
        return layers, [by_index[index] for index in body.indices]
    raise InputError(
        "feature_cache_mb is for ResNetFPN, MobileNetV3FPN, EfficientNetLite0FPN and timm's "
        "EfficientNets"
    )
