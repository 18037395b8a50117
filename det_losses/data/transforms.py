"""Augmentation: all transforms of torchvision.transforms.v2, by name."""

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from det_losses.errors import InputError, InputTypeError, located, one_line
from det_losses.registry import TRANSFORMS, find

for _name, _class in vars(v2).items():
    if inspect.isclass(_class) and issubclass(_class, v2.Transform) and _class is not v2.Transform:
        TRANSFORMS.register_module(name=_name, module=_class)

Transform = Callable[[Any], Any]


def build_transforms(specs: Sequence[Mapping[str, Any] | Transform]) -> list[Transform]:
    """Build transforms from ``dict(type=<name in torchvision.transforms.v2>, **arguments)``.

    Containers of transforms (``RandomApply``, ``RandomChoice``, ...) take such dicts in
    ``transforms``. A callable is used unchanged.

    Raises:
        NotRegisteredError: An unknown name; the nearest ones are suggested.
        InputTypeError: ``specs`` is not a list of such dicts, or an argument is unexpected.
        InputError: An argument is out of range.
    """
    if not isinstance(specs, Sequence) or isinstance(specs, str):
        raise InputTypeError(f"transforms must be a list of dict(type=..., ...), got {specs!r}")
    built = []
    for index, spec in enumerate(specs):
        with located(f"transforms.{index}"):
            built.append(_build_one(spec))
    return built


def _build_one(spec: Mapping[str, Any] | Transform) -> Transform:
    if callable(spec):
        return spec
    if not isinstance(spec, Mapping) or not isinstance(spec.get("type"), str):
        raise InputTypeError(f"a transform must be a dict with its name as 'type', got {spec!r}")
    arguments = {key: value for key, value in spec.items() if key != "type"}
    if "transforms" in arguments:
        arguments["transforms"] = build_transforms(arguments["transforms"])
    transform_class = find(TRANSFORMS, spec["type"])
    try:
        return transform_class(**arguments)
    except (TypeError, ValueError) as error:
        kind = InputTypeError if isinstance(error, TypeError) else InputError
        raise kind(f"transform {spec['type']}: {error}") from error


_KEEP_SIZES = (
    *("RandomHorizontalFlip", "RandomVerticalFlip", "Identity", "ColorJitter", "GaussianBlur"),
    *("Grayscale", "RandomGrayscale", "RandomPhotometricDistort", "RandomChannelPermutation"),
    *("RandomInvert", "RandomPosterize", "RandomSolarize", "RandomAdjustSharpness", "JPEG"),
    *("RandomAutocontrast", "RandomEqualize", "RandomErasing"),
)


def keeps_sizes(transform: Transform) -> bool:
    """Return whether a transform is known to keep the size of the image and of all boxes."""
    return type(transform).__module__.startswith("torchvision.") and (
        type(transform).__name__ in _KEEP_SIZES
    )


def apply_transforms(
    transforms: Sequence[Transform], image: Tensor, boxes: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Transform an image together with its boxes.

    Afterwards, boxes are clamped to the image. Boxes thinner than one pixel (cut off by a crop) are
    removed with their labels, as by ``SanitizeBoundingBoxes``.

    Args:
        transforms: From :func:`build_transforms`.
        image: uint8 [3, H, W].
        boxes: float32 [n, 4], xyxy, pixels.
        labels: int64 [n].

    Returns:
        Image, boxes and labels as plain tensors with the dtypes of the inputs.

    Raises:
        InputTypeError: The transformed image is not uint8 [3, H, W].
        InputError: A transform failed; the message names it.
    """
    if all(type(each) in _MIRRORED_AXIS for each in transforms):
        return _mirrored(transforms, image, boxes, labels)
    sample = {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=image.shape[-2:]),
        "labels": labels,
    }
    for index, transform in enumerate(transforms):
        sample = _applied(index, transform, sample)
    image = sample["image"]
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.shape[0] != 3:
        got = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else type(image)
        raise InputTypeError(
            f"after the transforms the image must be a uint8 tensor [3, H, W], got {got}. "
            "Remove conversion and normalisation; the detector does both."
        )
    boxes, kept = F.sanitize_bounding_boxes(F.clamp_bounding_boxes(sample["boxes"]))
    return image.as_subclass(Tensor), boxes.as_subclass(Tensor), sample["labels"][kept]


_MIRRORED_AXIS = {v2.RandomHorizontalFlip: 0, v2.RandomVerticalFlip: 1}  # x, y


def _mirrored(
    transforms: Sequence[Transform], image: Tensor, boxes: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply flips, with the values and random numbers of torchvision, in a fifth of its time."""
    for transform in transforms:
        if torch.rand(1) >= transform.p:
            continue
        axis = _MIRRORED_AXIS[type(transform)]
        image, side = image.flip(-1 - axis), image.shape[-1 - axis]
        low, high = boxes[:, axis], boxes[:, axis + 2]
        boxes = boxes.clone()
        boxes[:, axis], boxes[:, axis + 2] = side - high, side - low
    height, width = image.shape[-2:]
    boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))
    kept = (boxes[:, 2:] - boxes[:, :2] >= 1).all(dim=1)
    return (image, boxes, labels) if kept.all() else (image, boxes[kept], labels[kept])


def _applied(index: int, transform: Transform, sample: dict[str, Any]) -> dict[str, Any]:
    try:
        return transform(sample)
    except Exception as error:
        name = getattr(transform, "__name__", type(transform).__name__)
        hint = "; images are uint8, and the detector converts and normalises them"
        with located(f"transforms.{index}"):
            raise InputError(
                f"{name} fails on an image {list(sample['image'].shape)} with "
                f"{len(sample['boxes'])} boxes: {one_line(error).rstrip('.')}"
                f"{hint if isinstance(error, TypeError) else ''}"
            ) from error


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed torch's global CPU generator, which transforms use, and restore it on exit."""
    digest = hashlib.sha256(":".join(map(str, numbers)).encode()).digest()
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(int.from_bytes(digest[:7], "big"))
    try:
        yield
    finally:
        torch.set_rng_state(state)
