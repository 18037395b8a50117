"""Detections of one-stage detectors: thresholds, decoding and NMS for all images of a batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

# On a CPU, a larger temporary tensor often gets new memory pages, and these take most of the time.
_MOST_SCORES = 2**20
_FEW = 4000  # coordinates up to which torchvision's batched_nms on a CPU has one call for all


def detections(
    detector: nn.Module,
    score: Callable[..., Tensor],
    outputs: Sequence[tuple[Tensor, ...]],
    decode: Callable[[Tensor, Tensor], Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
) -> list[dict[str, Tensor]]:
    """Return boxes, scores and labels of each image, as torchvision's ``postprocess_detections``.

    torchvision has some 30 small operations for each level of each image. Here all images of a
    batch are compared with the threshold and decoded together. The calls that order equal scores,
    ``topk`` and the NMS, are torchvision's, so the detections are the same in the same order.

    Args:
        detector: has ``score_thresh``, ``topk_candidates``, ``nms_thresh``, ``detections_per_img``.
        score: turns the outputs of a level into scores, ``[B, A, K]``.
        outputs: of each level, ``[B, A, K]`` or ``[B, A, 1]``.
        decode: turns deltas and anchors, ``[N, 4]``, into boxes.
        deltas: of each level, ``[B, A, 4]``.
        anchors: of each level, ``[A, 4]``, the same for all images.
        image_shapes: height and width of each image.
    """
    levels = []
    for level, level_deltas, level_anchors in zip(outputs, deltas, anchors, strict=True):
        image, anchor, label, scores = _candidates(detector.score_thresh, score, level)
        rows = _best(image, scores, len(image_shapes), detector.topk_candidates)
        image, anchor = image[rows], anchor[rows]
        boxes = level_deltas[image, anchor], level_anchors[anchor]
        levels.append((image, label[rows], scores[rows], *boxes))
    image, label, scores, *boxes = map(torch.cat, zip(*levels, strict=True))
    by_image = image.argsort(stable=True)  # within an image, the order of the levels
    counts = torch.bincount(image, minlength=len(image_shapes)).tolist()
    parts = (each[by_image].split(counts) for each in (decode(*boxes), scores, label))
    return [
        _after_nms(detector, clip_boxes_to_image(boxes, shape), scores, labels)
        for shape, boxes, scores, labels in zip(image_shapes, *parts, strict=True)
    ]


def _candidates(
    threshold: float, score: Callable[..., Tensor], outputs: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return image, anchor, class and score of all scores above a threshold, sorted by image."""
    images = len(outputs[0])
    if outputs[0].device.type == "cpu":
        images = max(1, _MOST_SCORES // max(1, outputs[0][0].numel()))
    found, start = [], 0
    for group in zip(*(each.split(images) for each in outputs), strict=True):
        scores = score(*group)
        image, anchor, label = torch.where(scores > threshold)
        found.append((image + start, anchor, label, scores[image, anchor, label]))
        start += images
    return tuple(map(torch.cat, zip(*found, strict=True)))


def _best(image: Tensor, scores: Tensor, images: int, most: int) -> Tensor:
    """Return the rows of the ``most`` highest scores of each image."""
    chosen, start = [image[:0]], 0
    for count in torch.bincount(image, minlength=images).tolist():
        if count:
            part = scores[start : start + count]
            chosen.append(part.topk(min(count, most)).indices + start)
            start += count
    return torch.cat(chosen)


def _after_nms(
    detector: nn.Module, boxes: Tensor, scores: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    kept = nms_by_class(boxes, scores, labels, detector.nms_thresh)[: detector.detections_per_img]
    return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


def nms_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Return the indices that torchvision's ``batched_nms`` returns.

    For many boxes on a CPU, torchvision searches all boxes for those of each class. Here they are
    sorted by class once.
    """
    if boxes.numel() <= _FEW or boxes.device.type != "cpu":
        return batched_nms(boxes, scores, labels, threshold)
    classes = labels.argsort(stable=True).split(torch.bincount(labels).tolist())
    kept = torch.cat([own[nms(boxes[own], scores[own], threshold)] for own in classes if len(own)])
    kept = kept.sort().values
    return kept[scores[kept].argsort(descending=True)]  # equal scores in torchvision's order
