"""Detections of one-stage detectors: thresholds, decoding and NMS for all images of a batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

_FEW = 4000  # coordinates up to which torchvision's batched_nms on a CPU has one call for all


def detections(
    detector: nn.Module,
    scores: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    decode: Callable[[Tensor, Tensor], Tensor],
    image_shapes: Sequence[tuple[int, int]],
) -> list[dict[str, Tensor]]:
    """Return boxes, scores and labels of each image, as torchvision's ``postprocess_detections``.

    torchvision goes through all images and levels, which takes 30 small operations for each. Here
    the images of a batch have one threshold per level and one decoding; the best candidates of a
    level and the NMS are found by the same calls as in torchvision. So the results are the same,
    including the order of equal scores.

    Args:
        detector: has ``score_thresh``, ``topk_candidates``, ``nms_thresh``, ``detections_per_img``.
        scores: of each level, ``[B, A, K]``.
        deltas: of each level, ``[B, A, 4]``.
        anchors: of each level, ``[A, 4]``, the same for all images.
        decode: turns deltas and anchors, ``[N, 4]``, into boxes.
        image_shapes: height and width of each image.
    """
    levels = []
    for level, level_deltas, level_anchors in zip(scores, deltas, anchors, strict=True):
        image, anchor, label, score = _best(level, detector.score_thresh, detector.topk_candidates)
        levels.append((image, label, score, level_deltas[image, anchor], level_anchors[anchor]))
    image, label, score, delta, anchor = map(torch.cat, zip(*levels, strict=True))
    by_image = image.argsort(stable=True)  # within an image, the order of the levels
    counts = torch.bincount(image, minlength=len(image_shapes)).tolist()
    parts = (each[by_image].split(counts) for each in (decode(delta, anchor), score, label))
    found = []
    for shape, boxes, own_scores, labels in zip(image_shapes, *parts, strict=True):
        boxes = clip_boxes_to_image(boxes, shape)
        kept = nms_by_class(boxes, own_scores, labels, detector.nms_thresh)
        kept = kept[: detector.detections_per_img]
        found.append({"boxes": boxes[kept], "scores": own_scores[kept], "labels": labels[kept]})
    return found


def _best(scores: Tensor, threshold: float, most: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return image, anchor, class and score of the best ``most`` of each image of a level."""
    image, anchor, label = torch.where(scores > threshold)  # sorted by image
    score = scores[image, anchor, label]
    chosen, start = [image[:0]], 0
    for count in torch.bincount(image, minlength=len(scores)).tolist():
        if count:
            part = score[start : start + count]
            chosen.append(part.topk(min(count, most)).indices + start)
            start += count
    rows = torch.cat(chosen)
    return image[rows], anchor[rows], label[rows], score[rows]


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
