"""Predictions of a checkpoint on images, folders and videos."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from det_losses.data.images import to_rgb
from det_losses.data.transforms import apply_transforms
from det_losses.errors import InputError, InputTypeError, UserError
from det_losses.inference.sources import find_files, is_video, read_frames
from det_losses.inference.trained import TrainedDetector, load_detector

THRESHOLD = 0.3
BATCH_SIZE = 8

Picture = str | Path | Tensor | np.ndarray | Image.Image
Detection = dict[str, Any]


def predict(
    checkpoint: str | Path | TrainedDetector,
    images: Picture | Sequence[Picture],
    *,
    threshold: float = THRESHOLD,
    batch_size: int = BATCH_SIZE,
    device: str | torch.device | None = None,
    classes: Sequence[str] | None = None,
) -> list[Detection]:
    """Detect objects in images with a trained checkpoint.

    The config and the names of the classes are those stored in the checkpoint.

    Args:
        checkpoint: the file, or the result of :func:`~det_losses.inference.load_detector`, which
            saves the time of loading it at each call.
        images: one image or a list of them: a file, a folder (with its subfolders), a pattern such
            as ``"photos/*.jpg"``, a video, a tensor ``[3, H, W]`` (uint8, or float in 0..1), an
            array ``[H, W, 3]`` (uint8, RGB) or an image of PIL. Files are rotated by their EXIF
            orientation.
        threshold: lowest score of a box. The model drops boxes below its own ``score_thresh``.
        batch_size: largest number of images of equal size that are computed together.
        device: such as ``"cuda:1"``; None: a GPU if there is one.
        classes: names by label, for a checkpoint without them.

    Returns:
        For each image (each frame of a video) a dict as torchvision's detectors return it, on the
        CPU, by descending score: ``boxes`` (``[n, 4]``, xyxy, pixels of the image), ``scores`` and
        ``labels`` (``[n]``; 0..K-1); further ``names`` (the class of each box), ``size`` (width and
        height of the image), ``file`` (None for an image in memory) and ``frame`` (None, or the
        index in the video).

    Raises:
        MissingFileError: there is no such checkpoint or image.
        InputError: a file cannot be read, or an argument is out of range.
        InputTypeError: an image is of another type.
    """
    detector = checkpoint
    if not isinstance(detector, TrainedDetector):
        detector = load_detector(checkpoint, classes=classes, device=device)
    is_one = isinstance(images, (str, Path, Tensor, np.ndarray, Image.Image))
    frames = _frames_of([images] if is_one else images)
    return [found for _, found in detect(detector, frames, threshold, batch_size)]


def file_frames(
    files: Iterable[Path], on_error: Callable[[UserError], None] | None = None
) -> Iterator[tuple[Tensor, Detection]]:
    """Yield the frames of files for :func:`detect`.

    Args:
        files: images and videos.
        on_error: called with the error of a file that cannot be read, instead of raising it.
    """
    for file in files:
        try:
            for index, image in enumerate(read_frames(file)):
                yield image, {"file": file, "frame": index if is_video(file) else None}
        except (UserError, OSError) as error:
            if on_error is None:
                raise
            on_error(error)


def detect(
    detector: TrainedDetector,
    frames: Iterable[tuple[Tensor, Detection]],
    threshold: float = THRESHOLD,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[Tensor, Detection]]:
    """Yield each image with its detections, in order; few images are in memory at a time.

    Consecutive images of equal size are computed together. Images of different sizes are not,
    because a detector pads a batch to its largest image, and with group norm the padding changes
    the scores: the prediction of an image would depend on its neighbours.

    Args:
        detector: the detector.
        frames: images uint8 ``[3, H, W]``, each with entries that are added to its detections.
        threshold: lowest score.
        batch_size: largest number of images in a batch.

    Raises:
        InputError: an argument is out of range, or a transform of the config changes the size.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"the threshold must be from 0 to 1, got {threshold}")
    if batch_size < 1:
        raise InputError(f"the batch size must be at least 1, got {batch_size}")
    for _, group in itertools.groupby(frames, key=lambda frame: frame[0].shape):
        while batch := list(itertools.islice(group, batch_size)):
            images = [_transformed(image, detector) for image, _ in batch]
            with torch.no_grad():
                results = detector.model(images, mode="predict")
            for (image, entries), result in zip(batch, results, strict=True):
                yield image, _detection(image, result, threshold, detector.classes) | entries


def _transformed(image: Tensor, detector: TrainedDetector) -> Tensor:
    """Apply the transforms of test images, and copy the image to the model's device."""
    changed = image
    if detector.transforms:
        empty = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
        changed = apply_transforms(detector.transforms, image, *empty)[0]
        if changed.shape != image.shape:
            raise InputError(
                f"the transforms of the config's test dataset change an image from "
                f"{list(image.shape[1:])} to {list(changed.shape[1:])} (height, width); remove "
                "them from the config, the detector resizes images"
            )
    return changed.to(detector.device)


def _detection(
    image: Tensor, result: dict[str, Tensor], threshold: float, classes: Sequence[str]
) -> Detection:
    kept = result["scores"] >= threshold
    found: Detection = {name: result[name][kept].cpu() for name in ("boxes", "scores", "labels")}
    found["names"] = [classes[label] for label in found["labels"].tolist()]
    found["size"] = (image.shape[2], image.shape[1])
    return found


def _frames_of(images: Iterable[Picture]) -> Iterator[tuple[Tensor, Detection]]:
    """Yield the frames of files and of images in memory."""
    for image in images:
        if isinstance(image, (str, Path)):
            yield from file_frames(find_files([image]))
        else:
            yield _in_memory(image), {"file": None, "frame": None}


def _in_memory(image: Any) -> Tensor:
    """Convert an image in memory to uint8 ``[3, H, W]``."""
    if isinstance(image, Image.Image):
        image = np.array(to_rgb(image))
    is_array = isinstance(image, np.ndarray) and image.dtype == np.uint8
    if is_array and image.ndim == 3 and image.shape[2] == 3:
        image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    is_tensor = isinstance(image, Tensor)
    if is_tensor and image.is_floating_point():
        image = (image * 255).round().clamp(0, 255).to(torch.uint8)
    if not is_tensor or image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        got = f"{type(image).__name__} {getattr(image, 'dtype', '')} "
        got += str(list(getattr(image, "shape", [])))
        raise InputTypeError(
            "an image must be a path, an image of PIL, a uint8 array [H, W, 3], or a tensor "
            f"[3, H, W] (uint8, or float in 0..1), got {' '.join(got.split())}"
        )
    return image.contiguous()
