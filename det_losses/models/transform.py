"""torchvision's transform of images into a batch, in less time and with the size of each image."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from det_losses.tensors import is_traced


class SizingTransform(GeneralizedRCNNTransform):
    """torchvision's transform, which also stores the size of its image in each target.

    The values and random numbers are torchvision's. uint8 images are divided by 255 first. Images
    of one size are transformed together, and not interpolated if they have the right size already.
    torchvision copies several numbers per image to the device, and each copy waits for a GPU; here
    the only ones are the mean and standard deviation, once.
    """

    def __init__(self, transform: GeneralizedRCNNTransform) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(transform.__dict__)  # attributes set by torchvision's constructor
        self._statistics: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Any]] | None = None
    ) -> tuple[ImageList, list[dict[str, Any]] | None]:
        """Call torchvision's transform; add ``image_size``, the input's width and height."""
        kinds = {(image.shape, image.dtype) for image in images}
        if len(kinds) == 1 and images[0].dim() == 3 and len(self.min_size) == 1 and not is_traced():
            batch, targets = self._together(images, targets)
        else:
            batch, targets = super().forward(images, targets)
        if targets is not None:
            for target, (height, width) in zip(targets, batch.image_sizes, strict=True):
                target["image_size"] = (width, height)
        return batch, targets

    def _together(
        self, images: list[Tensor], targets: list[dict[str, Any]] | None
    ) -> tuple[ImageList, list[dict[str, Any]] | None]:
        """Transform images of one size."""
        before = images[0].shape[-2:]
        batch = self.normalize(torch.stack(images))
        if self.training and not self._skip_resize:
            for _ in images:
                self.torch_choice(self.min_size)  # draws a random number
        if (scaled := self._scaled(*before)) != tuple(before):
            batch = F.interpolate(batch, scaled, mode="bilinear", align_corners=False)
        after = batch.shape[-2:]
        if targets is not None:
            targets = [{**each, "boxes": _moved(each["boxes"], before, after)} for each in targets]
        padded = [math.ceil(side / self.size_divisible) * self.size_divisible for side in after]
        if padded != list(after):
            batch = F.pad(batch, (0, padded[1] - after[1], 0, padded[0] - after[0]))
        return ImageList(batch, [tuple(after)] * len(images)), targets

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the resized image, as computed by torchvision and torch."""
        if self.training and self._skip_resize:
            return height, width
        if self.fixed_size is not None:
            return self.fixed_size[1], self.fixed_size[0]
        sides = (height, width)
        scale = min(self.min_size[0] / min(sides), self.max_size / max(sides))
        return math.floor(height * scale), math.floor(width * scale)

    def normalize(self, image: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation of each channel."""
        if image.dtype == torch.uint8:
            image = image / 255
        key = (image.dtype, image.device)
        if key not in self._statistics:
            mean, std = image.new_tensor([self.image_mean, self.image_std])
            self._statistics[key] = (mean[:, None, None], std[:, None, None])
        mean, std = self._statistics[key]
        return (image - mean).div_(std)

    def resize(
        self, image: Tensor, target: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any] | None]:
        """Resize an image and the boxes of its target."""
        before = image.shape[-2:]
        image, _ = super().resize(image)
        if target is not None:
            target["boxes"] = _moved(target["boxes"], before, image.shape[-2:])
        return image, target

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Return the detections in pixels of the images before they were resized."""
        if list(image_shapes) == list(original_image_sizes):
            return result
        return super().postprocess(result, image_shapes, original_image_sizes)


def _moved(boxes: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Return boxes in an image that was resized; ``before`` and ``after`` are height and width."""
    if tuple(before) == tuple(after):
        return boxes
    sizes = torch.tensor([after, before], dtype=torch.float32)
    ratio_y, ratio_x = (sizes[0] / sizes[1]).tolist()
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack((x1 * ratio_x, y1 * ratio_y, x2 * ratio_x, y2 * ratio_y), dim=1)


def image_sizes(targets: Sequence[dict[str, Any]]) -> Tensor:
    """Return width and height of each image, ``[B, 2]``, from :class:`SizingTransform`."""
    return targets[0]["boxes"].new_tensor([target["image_size"] for target in targets])
