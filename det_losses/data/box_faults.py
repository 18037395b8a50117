"""Boxes that training drops or changes, and signs that boxes have another format."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from det_losses.errors import agreed, counted

BEYOND = 1.0  # pixels by which a box may overshoot its image: annotations are rounded
_THIN = 1.0  # pixels; torchvision's SanitizeBoundingBoxes removes boxes that are thinner
_SHARE = 0.5  # of boxes with values from 0 to 1, from which on a set is suspected
_BEYOND_SHARE = 0.1  # of boxes beyond their image, from which on another format is looked for
_AS_OTHER = 0.95  # of boxes that fit as another format, from which on a set is suspected
_FEW = 3  # fewer boxes than this are no sign

STRONG = "WRONG BOXES?"  # begins the sentences that almost always mean an error in the data


def clipped_corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the part of each box inside its image: ``[N, 4]`` float32, xyxy, pixels.

    Args:
        boxes: ``[N, 4]`` x, y, width, height, pixels.
        sizes: ``[N, 2]`` width and height of the images, pixels.
    """
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return np.clip(corners, 0, np.tile(sizes, 2)).astype(np.float32)


def without_area(corners: np.ndarray) -> np.ndarray:
    """Return ``[N]``: whether nothing of a box is inside its image.

    Such boxes are neither targets in training nor ground truth in an evaluation.

    Args:
        corners: of :func:`clipped_corners`.
    """
    return (corners[:, 2] <= corners[:, 0]) | (corners[:, 3] <= corners[:, 1])


def find_faults(boxes: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Return which boxes have each fault: name -> ``[N]`` bool, none of them in two masks.

    ``degenerate`` (no width or height), ``outside`` (of the image), ``clipped`` (reaches more than
    a pixel beyond the image) and ``thin`` (the part inside is thinner than a pixel).
    """
    corners = clipped_corners(boxes, sizes)
    void = without_area(corners)
    degenerate = void & ((boxes[:, 2:] <= 0).any(axis=1) | _covers_nothing(boxes))
    beyond = (boxes[:, :2] < -BEYOND).any(axis=1)
    beyond |= (boxes[:, :2] + boxes[:, 2:] > sizes + BEYOND).any(axis=1)
    thin = ~void & (corners[:, 2:] - corners[:, :2] < _THIN).any(axis=1)
    return {
        "degenerate": degenerate,
        "outside": void & ~degenerate,
        "clipped": ~void & beyond,
        "thin": thin & ~beyond,
    }


def _covers_nothing(boxes: np.ndarray) -> np.ndarray:
    """Return whether a box has no area in float32."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    return (high.astype(np.float32) <= low.astype(np.float32)).any(axis=1)


def find_repeated(images: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return ``[N]``: whether an earlier box has the same image, label and coordinates."""
    seen: set[tuple[float, ...]] = set()
    repeated = np.zeros(len(boxes), dtype=bool)
    keys = zip(images.tolist(), labels.tolist(), *boxes.T.tolist(), strict=True)
    for row, key in enumerate(keys):
        repeated[row] = key in seen
        seen.add(key)
    return repeated


def wrong_format(boxes: np.ndarray, sizes: np.ndarray) -> list[str]:
    """Return a sentence if boxes are probably not x, y, width, height in pixels.

    If many boxes reach beyond their image, and nearly all fit when they are read in another way,
    that is probably their format.

    Args:
        boxes: ``[N, 4]`` as given.
        sizes: ``[N, 2]`` width and height of their images; infinite if unknown.
    """
    if len(boxes) < _FEW:
        return []
    normalised = ((boxes >= 0) & (boxes <= 1)).all(axis=1)
    if normalised.mean() > _SHARE:
        return [
            f"{STRONG} {normalised.sum()} of {len(boxes)} boxes have only values from 0 to 1"
            f"{such(boxes[normalised])}: are they fractions of the image size? Multiply them by "
            "width and height"
        ]
    known = np.isfinite(sizes).all(axis=1)
    beyond = (boxes[:, :2] + boxes[:, 2:] > sizes + BEYOND).any(axis=1)
    if beyond.mean() <= _BEYOND_SHARE:
        return []
    fits = {name: _fits(read(boxes), sizes) & known for name, read in _READINGS.items()}
    best = max(fits, key=lambda name: fits[name].sum())
    if fits[best].mean() > _AS_OTHER:
        return [
            f"{STRONG} {beyond.sum()} of {len(boxes)} boxes reach beyond their image"
            f"{such(boxes[beyond])}, but {fits[best].sum()} fit as {best}: are they "
            f"{_ORDERS[best]}? COCO's are x, y, width, height"
        ]
    outside = known & (boxes[:, :2] >= sizes).any(axis=1)
    if (
        outside.mean() <= _BEYOND_SHARE or outside.sum() < _FEW
    ):  # objects at the border may be annotated beyond it
        return []
    return [
        f"{STRONG} {outside.sum()} of {len(boxes)} boxes begin beyond their image"
        f"{such(boxes[outside])}: were they annotated on images of another size? Check 'width' and "
        "'height' of the images, or scale the boxes"
    ]


def _fits(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return whether boxes x, y, width, height are well formed and inside their image."""
    inside = (boxes[:, :2] >= -BEYOND) & (boxes[:, :2] + boxes[:, 2:] <= sizes + BEYOND)
    return inside.all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)


_READINGS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "two corners": lambda b: np.hstack([b[:, :2], b[:, 2:] - b[:, :2]]),
    "centre and size": lambda b: np.hstack([b[:, :2] - b[:, 2:] / 2, b[:, 2:]]),
}
_ORDERS: Mapping[str, str] = {
    "two corners": "x1, y1, x2, y2",
    "centre and size": "centre x, centre y, width, height",
}


def turned_images(boxes: np.ndarray, sizes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the images whose boxes reach beyond them, but fit after a rotation by 90 degrees.

    If such a file has an EXIF orientation, its boxes were drawn on the upright picture.

    Args:
        boxes: ``[N, 4]`` as given.
        sizes: ``[N, 2]`` width and height of their images.
        images: ``[N]`` number of their images.
    """
    end = boxes[:, :2] + boxes[:, 2:]
    beyond = (end > sizes + BEYOND).any(axis=1)
    unfit = (end > sizes[:, ::-1] + BEYOND).any(axis=1)
    return np.setdiff1d(images[beyond], images[unfit])


def such(boxes: np.ndarray) -> str:
    """Return up to three boxes as examples: ", such as [...], [...]"."""
    texts = ["[" + ", ".join(f"{value:.4g}" for value in box) + "]" for box in boxes[:3]]
    return f", such as {', '.join(texts)}"


_IN_TRAINING: Mapping[str, str] = {
    "degenerate": "have no width or height and are left out",
    "outside": "are outside their image and are left out",
    "clipped": "reach beyond their image and are clipped",
    "thin": "are thinner than a pixel, and training with transforms leaves them out",
    "repeated": "repeat a box of the same image and class, and are kept",
    "crowd": "are crowds and are left out",
}
_IN_EVALUATION: Mapping[str, str] = {
    **_IN_TRAINING,
    "clipped": "reach beyond their image and are evaluated as annotated",
    "thin": "",
    "crowd": "are crowds: detections on them are ignored",
}


def describe_faults(
    faults: Mapping[str, np.ndarray], files: Sequence[str], evaluation: bool
) -> list[str]:
    """Return a sentence with count and up to three examples for each fault.

    Args:
        faults: name -> ``[N]`` bool.
        files: name of the image file of each box.
        evaluation: whether the boxes are those of an evaluation.
    """
    found = []
    for name, sentence in (_IN_EVALUATION if evaluation else _IN_TRAINING).items():
        rows = np.flatnonzero(faults.get(name, ()))
        if len(rows) and sentence:
            examples = list(dict.fromkeys(files[row] for row in rows[:100].tolist()))
            more = ", ..." if len(examples) > 3 or len(rows) > 100 else ""
            found.append(
                f"{len(rows)} of {counted(len(files), 'box')} {agreed(len(rows), sentence)} "
                f"({', '.join(examples[:3])}{more})"
            )
    return found
