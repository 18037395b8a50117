"""Common parts of all detectors: mmengine's interface, labels, anchors, weights."""

import inspect
import itertools
import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.utils import is_seq_of
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_iou

from det_losses.errors import InputError, InputTypeError, located
from det_losses.losses.core.state import is_distributed, mean_over_ranks
from det_losses.models.weights import (
    Pretrained,
    WeightsConfig,
    load_pretrained,
    read_pretrained,
)
from det_losses.signatures import check_call, check_ranges, parameters
from det_losses.tensors import is_traced, upcast

# Names of torchvision's arguments that our detectors set themselves.
_BUILT_HERE = r"rpn|transform|.*(anchor_generator|matcher|head|roi_pool|predictor).*"
_Colours = tuple[float, float, float] | None
_Deltas = tuple[float, float, float, float] | None
# Types, and smallest and largest values, of torchvision's arguments by name. torchvision checks
# neither, and a wrong one would be noticed in an evaluation, after the first epoch.
_ARGUMENTS: Sequence[tuple[str, Any, tuple[float, float]]] = (
    (r".*_(thresh|fraction)", float, (0, 1)),
    (r".*_(per_img|per_image|train|test|candidates)", int, (1, math.inf)),
    (r"max_size|size_divisible", int, (1, math.inf)),
    (r"min_size", int | Sequence[int], (1, math.inf)),
    (r"fixed_size", tuple[int, int] | None, (1, math.inf)),
    (r"image_mean", _Colours, (-1e6, 1e6)),
    (r"image_std", _Colours, (1e-6, 1e6)),
    (r"bbox_reg_weights", _Deltas, (1e-6, 1e6)),
    (r"center_sampling_radius", float, (1e-6, 1e6)),
)


class _ToDevice(BaseDataPreprocessor):
    """Copies a batch to a GPU, if pinned without waiting for it; on a CPU nothing is copied."""

    def cast_data(self, data: Any) -> Any:
        """Return the data with all tensors on the model's device."""
        return data if self.device.type == "cpu" else super().cast_data(data)


class Detector(BaseModel):
    """A torchvision detector with mmengine's model interface.

    ``detector`` is torchvision's module, with torchvision's state_dict keys. ``losses`` contains
    the loss of each slot, and ``loss_sources`` the source of its weight and parameters.

    Dataset labels are 0..K-1. torchvision's channels may differ: class k has the channel
    ``class_to_channel[k]`` of ``num_channels``. By default, the classes have consecutive channels
    from ``first_channel``. torchvision's COCO weights have 91 channels, indexed by the official
    category ids.

    ``loaded`` is the record of the weights that training starts from
    (:func:`~det_losses.models.weights.load_pretrained`), None without them. ``class_layers`` are
    the layers of ``detector`` with an output per channel, and ``channel_dim`` the position of the
    channel in their output: 0, or 1 behind the anchor.

    Args:
        num_classes: number of classes K, without background.
        class_to_channel: channel of each class, K different integers.
        num_channels: number of channels, including a background channel 0 if there is one.
        first_channel: 1 if channel 0 is the background, else 0.

    Raises:
        InputError: ``num_classes`` or ``class_to_channel`` is out of range.
    """

    torchvision_class: ClassVar[type[nn.Module]]
    class_layers: ClassVar[tuple[str, ...]]
    channel_dim: ClassVar[int] = 1
    losses: nn.ModuleDict
    loss_sources: dict[str, str]
    detector: nn.Module

    def __init__(
        self,
        num_classes: int,
        class_to_channel: Sequence[int] | None,
        num_channels: int,
        first_channel: int,
    ) -> None:
        super().__init__(_ToDevice(non_blocking=True))
        if not isinstance(num_classes, int) or num_classes < 1:
            raise InputError(
                f"num_classes must be the number of classes without background, got {num_classes!r}"
            )
        channels = list(range(first_channel, first_channel + num_classes))
        if class_to_channel is not None:
            if not is_seq_of(class_to_channel, int):
                raise InputTypeError(
                    f"class_to_channel must be a list of whole numbers, got {class_to_channel!r}"
                )
            channels = list(class_to_channel)
        if len(channels) != num_classes or len(set(channels)) != num_classes:
            raise InputError(
                f"class_to_channel must be {num_classes} different channels, one per class, got "
                f"{channels}"
            )
        if not set(channels) <= set(range(first_channel, num_channels)):
            raise InputError(
                f"class_to_channel must be in {first_channel}..{num_channels - 1} "
                f"(num_channels={num_channels}), got {channels}"
            )
        self.loaded: dict[str, Any] | None = None
        self.num_classes = num_classes
        self.num_channels = num_channels
        self.loss_classes = num_channels - first_channel  # class channels, without background
        inverse = torch.full((num_channels,), -1)
        inverse[channels] = torch.arange(num_classes)
        self.register_buffer("_class_to_channel", torch.tensor(channels), persistent=False)
        self.register_buffer("_channel_to_class", inverse, persistent=False)

    @classmethod
    def further_parameters(cls) -> dict[str, inspect.Parameter]:
        """Return the parameters of torchvision's classes that ``**kwargs`` accepts, by name."""
        known = {
            name: parameter
            for each in (GeneralizedRCNNTransform, cls.torchvision_class)
            for name, parameter in parameters(each)[0].items()
            if not re.fullmatch(_BUILT_HERE, name)
        }
        for name, parameter in known.items():
            for pattern, annotation, _ in _ARGUMENTS:
                if re.fullmatch(pattern, name):
                    known[name] = parameter.replace(annotation=annotation)
        return known

    @classmethod
    def settings_table(cls, model: Mapping[str, Any]) -> str:
        """Return the name of the published settings that a model's config uses.

        Args:
            model: config of the model, or its losses by slot.
        """
        return cls.__name__

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
            mode: ``"loss"`` returns the dict of ``loss_*``; ``"predict"`` and ``"tensor"`` return
                ``boxes``, ``scores``, ``labels`` and ``image_id`` per image.

        Raises:
            ValueError: unknown mode, missing targets for losses, or a mode that contradicts the
                train/eval state.
            InputError: on a CPU, a label is not in 0..K-1.
        """
        if mode not in ("loss", "predict", "tensor"):
            raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")
        if (mode == "loss") != self.training:
            call = "train()" if mode == "loss" else "eval()"
            raise ValueError(
                f"mode={mode!r} contradicts the model's train/eval state: call {call} first"
            )
        images = list(images)
        if mode == "loss":
            if targets is None:
                raise ValueError("mode='loss' needs targets")
            return self.detector(images, [self._to_channels(target) for target in targets])
        ids = [target.get("image_id") for target in targets] if targets else [None] * len(images)
        return [
            {**self._to_classes(result), "image_id": image_id}
            for result, image_id in zip(self.detector(images), ids, strict=True)
        ]

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, OrderedDict[str, Tensor]]:
        """Return the sum of the losses, and all of them by name for the log.

        With several ranks, those for the log are the means over the ranks: the losses of the whole
        batch.
        """
        total, named = super().parse_losses(losses)
        if is_distributed():
            means = mean_over_ranks(torch.stack([upcast(each.detach()) for each in named.values()]))
            named = OrderedDict(zip(named, means.unbind(), strict=True))
        return total, named

    def _to_channels(self, target: dict[str, Any]) -> dict[str, Tensor]:
        labels = target["labels"]
        # On a GPU the values are not read, because that waits for it.
        if labels.device.type == "cpu" and not torch.compiler.is_compiling() and labels.numel():
            low, high = map(int, torch.aminmax(labels))
            if low < 0 or high >= self.num_classes:
                raise InputError(
                    f"the labels of a target must be in 0..{self.num_classes - 1}, got "
                    f"{low if low < 0 else high}"
                )
        return {"boxes": target["boxes"], "labels": self._class_to_channel[labels]}

    def _to_classes(self, result: dict[str, Tensor]) -> dict[str, Tensor]:
        labels = self._channel_to_class[result["labels"]]
        known = labels >= 0
        return {
            "boxes": result["boxes"][known],
            "scores": result["scores"][known],
            "labels": labels[known],
        }

    @classmethod
    def read_weights(cls, weights: WeightsConfig) -> Pretrained | None:
        """Read the argument ``weights``; None without any.

        Raises:
            MissingFileError: neither a file nor a name that torchvision knows.
            InputError: the file cannot be used.
        """
        return read_pretrained(weights, cls.__name__)

    def load(self, pretrained: Pretrained | None) -> None:
        """Load what fits of a detector's weights, and store the record as ``loaded``.

        Raises:
            InputError: nothing fits.
        """
        if pretrained is not None:
            self.loaded = load_pretrained(self, pretrained)

    def channel_names(self, classes: Sequence[str] | None) -> list[str | None]:
        """Return the name of each channel of the class layers, None where it is unknown."""
        names: list[str | None] = [None] * self.num_channels
        for channel, name in zip(self._class_to_channel.tolist(), classes or (), strict=False):
            names[channel] = name
        return names


def match_anchors(matcher: Matcher, boxes: Sequence[Tensor], anchors: Tensor) -> Tensor:
    """Return the index of the box that each anchor of each image is matched to, ``[B, A]``.

    The values are those of torchvision's matcher for one image after the other, -1 without boxes.
    The images of a batch are matched together unless that would take much memory.

    Args:
        matcher: torchvision's.
        boxes: ground truth of each image, ``[n, 4]``.
        anchors: ``[A, 4]``, the same for all images.
    """
    counts = [len(each) for each in boxes]
    most = max(counts)
    if len(boxes) > 1 and len(boxes) * most * len(anchors) > MOST_PAIRS:
        return torch.cat([match_anchors(matcher, [each], anchors) for each in boxes])
    if most == 0:
        shape = (len(boxes), len(anchors))
        return torch.full(shape, matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
    padded = pad_sequence(list(boxes), batch_first=True)
    real = torch.arange(most)[:, None] < torch.tensor(counts)[:, None, None]
    real = real.to(anchors.device, non_blocking=True)  # [B, G, 1]
    quality = box_iou(padded.flatten(0, 1), anchors).unflatten(0, (-1, most))
    quality = torch.where(real, quality, -1)
    best, index = quality.max(dim=1)
    between = (best >= matcher.low_threshold) & (best < matcher.high_threshold)
    matched = index.masked_fill(best < matcher.low_threshold, matcher.BELOW_LOW_THRESHOLD)
    matched = matched.masked_fill(between, matcher.BETWEEN_THRESHOLDS)
    if matcher.allow_low_quality_matches:  # the best anchors of each box are matched in any case
        highest = quality.amax(dim=2, keepdim=True)
        matched = torch.where(((quality == highest) & real).any(dim=1), index, matched)
    return matched


MOST_PAIRS = 2_000_000  # of boxes and anchors


def matched_targets(
    targets: Sequence[dict[str, Any]],
    matched: Tensor,
    positive: tuple[Tensor, Tensor],
    background: int,
) -> tuple[Tensor, Tensor]:
    """Return the labels and boxes that a one-stage head is trained with.

    Args:
        targets: per image, as torchvision's heads get them.
        matched: index of the box matched to each anchor, ``[B, A]``; negative for none.
        positive: indices of image and anchor of the N positives, in order.
        background: the label of anchors without a box.

    Returns:
        The label of each anchor, ``[B, A]``, and the box of each positive, ``[N, 4]``.
    """
    starts = itertools.accumulate((len(target["boxes"]) for target in targets), initial=0)
    of_all = torch.stack([row + start for row, start in zip(matched, starts, strict=False)])
    chosen = of_all[positive]
    labels = torch.full_like(matched, background)
    labels[positive] = torch.cat([target["labels"] for target in targets])[chosen]
    return labels, torch.cat([target["boxes"] for target in targets])[chosen]


def check_torchvision_arguments(detector: type[Detector], kwargs: Mapping[str, Any]) -> None:
    """Check the arguments for torchvision's classes, which ignore unknown ones silently.

    Raises:
        InputTypeError: an unknown argument or a wrong type; the nearest names are suggested.
        InputError: a number is out of range, or a matcher's lower threshold is above its upper one.
    """
    check_call(detector, kwargs, given=("backbone", "num_classes"))
    for pattern, _, limits in _ARGUMENTS:
        check_ranges(kwargs, {name: limits for name in kwargs if re.fullmatch(pattern, name)})
    values = {n: kwargs.get(n, p.default) for n, p in detector.further_parameters().items()}
    for name in [name for name in values if name.endswith("bg_iou_thresh")]:
        upper = name.replace("bg_", "fg_")
        if values[name] > values[upper]:
            with located(name):
                raise InputError(f"{values[name]} is above {upper}, which is {values[upper]}")


def with_normalisation(body: nn.Module, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Add the backbone's ``image_mean`` and ``image_std``, unless the config gives them."""
    defaults = {name: getattr(body, name, None) for name in ("image_mean", "image_std")}
    return {**defaults, **kwargs}


class FullPrecisionAnchors(AnchorGenerator):
    """torchvision's anchor generator, with float32 anchors for half-precision features.

    torchvision's anchors have the features' dtype. In bfloat16 an anchor of 8 px at x = 1280 has
    zero width. The anchors of the last image sizes are kept, and all images of a batch share them.
    """

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return each image's anchors; only size, dtype and device of the features are used."""
        if is_traced():
            return super().forward(image_list, [upcast(level[:1, :1]) for level in feature_maps])
        first = feature_maps[0]
        maps = (image_list.tensors, *feature_maps)
        key = (first.dtype, first.device, *(each.shape[-2:] for each in maps))
        known = self.__dict__.setdefault("_known", {})
        if key not in known:
            one = ImageList(image_list.tensors, image_list.image_sizes[:1])
            if len(known) >= _KEPT_ANCHORS:
                del known[next(iter(known))]
            levels = [upcast(level[:1, :1]) for level in feature_maps]
            known[key] = super().forward(one, levels)[0]
        return [known[key]] * len(image_list.image_sizes)


_KEPT_ANCHORS = 16  # image sizes


def anchors_of_config(
    detector: str, anchors: Mapping[str, Any], body: nn.Module
) -> FullPrecisionAnchors:
    """Build the generator from the config entry ``anchors``; see :func:`anchor_generator`.

    Raises:
        InputError: also if there is not one entry of ``sizes`` for each level of the backbone.
    """
    with located("anchors"):
        check_call(anchor_generator, anchors, given=("detector",), title="AnchorGenerator")
        generator = anchor_generator(detector, **anchors)
        check_levels(f"{detector} anchors need sizes", generator.sizes, body)
        return generator


def check_levels(what: str, sizes: Sequence[Any], body: nn.Module) -> None:
    """Raise InputError if ``sizes`` has not one entry for each level that a backbone names."""
    levels = getattr(body, "level_names", sizes)
    if len(sizes) != len(levels):
        raise InputError(
            f"{what} for each of the backbone's {len(levels)} levels "
            f"({', '.join(map(str, levels))}), got {tuple(sizes)}"
        )


def anchor_generator(
    detector: str,
    sizes: Sequence[Sequence[float]],
    aspect_ratios: Sequence[float] | Sequence[Sequence[float]],
) -> FullPrecisionAnchors:
    """Build the generator from ``sizes``, one tuple per level, and the aspect ratios.

    Raises:
        InputError: a size or a ratio is not above 0, or the levels have different numbers of
            anchors; ``detector`` is named in the message.
    """
    ratios = list(aspect_ratios)
    if ratios and not isinstance(ratios[0], Sequence):
        ratios = [ratios] * len(sizes)
    for flat in ([number for level in each for number in level] for each in (sizes, ratios)):
        if not flat or not 0 < min(flat) <= max(flat) < math.inf:
            raise InputError(
                f"{detector} anchors need sizes above 0 and aspect ratios above 0, got "
                f"sizes={sizes}, aspect_ratios={aspect_ratios}"
            )
    same_levels = len(ratios) == len(sizes)
    if not same_levels or len({len(s) * len(r) for s, r in zip(sizes, ratios, strict=True)}) != 1:
        raise InputError(
            f"{detector} anchors: every level needs the same number of sizes and ratios, "
            f"got sizes={sizes}, aspect_ratios={aspect_ratios}"
        )
    return FullPrecisionAnchors(tuple(map(tuple, sizes)), tuple(map(tuple, ratios)))
