"""What all detectors share: mmengine's model contract, labels, and torchvision's weights."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from det_losses.models.anchors import FullPrecisionAnchors
from det_losses.models.weights import load_weights

# Arguments of torchvision's detectors that ours build themselves.
_BUILT_HERE = ("anchor_generator", "matcher", "head", "roi_pool", "predictor")


class Detector(BaseModel):
    """A torchvision detector behind mmengine's contract.

    ``detector`` is torchvision's module, with torchvision's state_dict keys; ``losses`` holds the
    loss of each slot beside it, ``loss_sources`` for each slot where weight and parameters of its
    loss come from.

    Dataset labels are 0..K-1. torchvision's channels may be others: a class k lives in channel
    ``label_slots[k]`` of ``num_slots``. By default they follow each other from ``first_slot`` on;
    torchvision's COCO weights have 91 channels and the official category id as channel.

    Args:
        num_classes: number of classes K, without background.
        label_slots: channel of each class, K different integers.
        num_slots: number of channels that labels count through.
        first_slot: 1 where channel 0 is the background, else 0.

    Raises:
        ValueError: ``num_classes`` or ``label_slots`` is out of range.
    """

    losses: nn.ModuleDict
    loss_sources: dict[str, str]
    detector: nn.Module

    def __init__(
        self,
        num_classes: int,
        label_slots: Sequence[int] | None,
        num_slots: int,
        first_slot: int,
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(
                f"num_classes must be the number of classes without background, got {num_classes!r}"
            )
        slots = list(range(first_slot, first_slot + num_classes))
        if label_slots is not None:
            slots = list(label_slots)
        valid = range(first_slot, num_slots)
        if len(slots) != num_classes or len(set(slots)) != num_classes:
            raise ValueError(
                f"label_slots must be {num_classes} different channels, one a class, got {slots}"
            )
        if not set(slots) <= set(valid):
            raise ValueError(
                f"label_slots must lie in {valid.start}..{valid.stop - 1} (num_slots={num_slots}), "
                f"got {slots}"
            )
        self.num_classes = num_classes
        self.num_slots = num_slots
        self.loss_classes = num_slots - first_slot  # channels of classes, as losses see them
        inverse = torch.full((num_slots,), -1)
        inverse[slots] = torch.arange(num_classes)
        self.register_buffer("_slot_of_class", torch.tensor(slots), persistent=False)
        self.register_buffer("_class_of_slot", inverse, persistent=False)

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Any]] | None = None,
        mode: str = "tensor",
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Compute losses or predictions.

        Args:
            images: images ``[3, H, W]``, uint8 or float in 0..1; sizes may differ.
            targets: for each image ``boxes`` (``[n, 4]``, xyxy, pixels), ``labels`` (``[n]``) and,
                if known, ``image_id``. Needed for losses.
            mode: ``"loss"`` gives the dict of ``loss_*``; ``"predict"`` and ``"tensor"`` give for
                each image ``boxes``, ``scores``, ``labels`` and ``image_id``.

        Raises:
            ValueError: unknown mode, no targets for losses, or train/eval state and mode differ.
        """
        if mode not in ("loss", "predict", "tensor"):
            raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")
        if (mode == "loss") != self.training:
            call = "train()" if mode == "loss" else "eval()"
            raise ValueError(f"mode={mode!r} needs the model in its other state: call {call} first")
        images = [image / 255 if image.dtype == torch.uint8 else image for image in images]
        if mode == "loss":
            if targets is None:
                raise ValueError("mode='loss' needs targets")
            return self.detector(images, [self._to_slots(target) for target in targets])
        ids = [target.get("image_id") for target in targets] if targets else [None] * len(images)
        return [
            {**self._to_classes(result), "image_id": image_id}
            for result, image_id in zip(self.detector(images), ids, strict=True)
        ]

    def _to_slots(self, target: dict[str, Any]) -> dict[str, Tensor]:
        return {"boxes": target["boxes"], "labels": self._slot_of_class[target["labels"]]}

    def _to_classes(self, result: dict[str, Tensor]) -> dict[str, Tensor]:
        labels = self._class_of_slot[result["labels"]]
        known = labels >= 0
        return {
            "boxes": result["boxes"][known],
            "scores": result["scores"][known],
            "labels": labels[known],
        }

    def load_torchvision(self, weights: str | None) -> None:
        """Load a torchvision state_dict: a local file, or a name of torchvision's weights.

        Raises:
            FileNotFoundError: neither a file nor a name that torchvision knows.
            ValueError: the weights are of another architecture or number of channels.
        """
        if weights is None:
            return
        state = load_weights(weights)
        try:
            self.detector.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"weights {weights!r} do not fit this model: {error}") from None


class SizingTransform(GeneralizedRCNNTransform):
    """torchvision's transform, which also tells each target the size of its image."""

    def __init__(self, transform: GeneralizedRCNNTransform) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(transform.__dict__)  # all that torchvision's constructor has set

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Any]] | None = None
    ) -> tuple[ImageList, list[dict[str, Any]] | None]:
        """Do as torchvision does; ``image_size`` is width and height of the network's input."""
        batch, targets = super().forward(images, targets)
        if targets is not None:
            for target, (height, width) in zip(targets, batch.image_sizes, strict=True):
                target["image_size"] = (width, height)
        return batch, targets


def image_sizes(targets: Sequence[dict[str, Any]]) -> Tensor:
    """Return width and height of each image, ``[B, 2]``, as :class:`SizingTransform` told them."""
    return targets[0]["boxes"].new_tensor([target["image_size"] for target in targets])


def check_torchvision_arguments(ours: type, theirs: type, kwargs: Mapping[str, Any]) -> None:
    """Refuse what neither our class nor torchvision's knows; torchvision ignores it in silence.

    Raises:
        TypeError: an unknown argument; the nearest names are suggested.
    """
    known = set()
    for cls in (ours, theirs, GeneralizedRCNNTransform):
        for name, parameter in inspect.signature(cls).parameters.items():
            built_here = any(part in name for part in _BUILT_HERE)
            if parameter.kind is not parameter.VAR_KEYWORD and not built_here:
                known.add(name)
    for name in kwargs:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {sorted(known)}."
            raise TypeError(f"{ours.__name__} has no argument {name!r}. {hint}")


def with_normalisation(body: nn.Module, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Add the body's own ``image_mean`` and ``image_std`` where the config gives none."""
    own = {name: getattr(body, name, None) for name in ("image_mean", "image_std")}
    return {**own, **kwargs}


def anchor_generator(
    detector: str,
    sizes: Sequence[Sequence[float]],
    aspect_ratios: Sequence[float] | Sequence[Sequence[float]],
) -> FullPrecisionAnchors:
    """Build the generator from ``sizes``, one tuple a level, and the aspect ratios.

    Raises:
        ValueError: the levels have different numbers of anchors; ``detector`` is named.
    """
    ratios = list(aspect_ratios)
    if not isinstance(ratios[0], Sequence):
        ratios = [ratios] * len(sizes)
    same_levels = len(ratios) == len(sizes)
    if not same_levels or len({len(s) * len(r) for s, r in zip(sizes, ratios, strict=True)}) != 1:
        raise ValueError(
            f"{detector} anchors: every level needs the same number of sizes and ratios, "
            f"got sizes={sizes}, aspect_ratios={aspect_ratios}"
        )
    return FullPrecisionAnchors(tuple(map(tuple, sizes)), tuple(map(tuple, ratios)))
