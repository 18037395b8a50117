"""Read and check COCO result files."""

from pathlib import Path
from typing import Any

import numpy as np

from det_losses.data.coco_json import ID_LIMIT, is_finite, parse_json, whole_number
from det_losses.errors import InputError, MissingFileError, agreed
from det_losses.evaluation.ground_truth import GroundTruth

_FIELDS = ("image_id", "category_id", "bbox", "score")


def read_detections(path: str | Path, truth: GroundTruth | None = None) -> np.ndarray:
    """Read a COCO result file: a json list of detections, which may be empty.

    Args:
        path: the file.
        truth: if given, images and classes are checked against it, so that the error for an
            unknown one names the file.

    Returns:
        ``[N, 7]`` float64 in the file's order: image id, x, y, width, height (pixels), score,
        category id.

    Raises:
        MissingFileError: no such file.
        InputError: not a valid result file; the message names the file, the entry and the field.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(
            f"{path}: no such result file. Give a COCO result json: a list of detections with "
            f"{', '.join(_FIELDS)}."
        )
    entries = parse_json(path, "Is it complete?")
    if not isinstance(entries, list):
        raise InputError(
            f"{path}: a COCO result file is a list of detections, found a "
            f"{type(entries).__name__}. Give the detections, not the annotations."
        )
    faults = ((index, fault) for index, entry in enumerate(entries) if (fault := _fault(entry)))
    index, first = next(faults, (None, None))
    if first:
        more = sum(1 for _ in faults)
        have = agreed(more, "have")
        further = f" {more} more of the {len(entries)} detections {have} errors." if more else ""
        raise InputError(f"{path}: [{index}]: {first}{further}")
    rows = [(e["image_id"], *e["bbox"], e["score"], e["category_id"]) for e in entries]
    detections = np.array(rows, dtype=np.float64).reshape(-1, 7)
    if truth is not None:
        truth.locate(detections, f"{path}: ")
    return detections


def _fault(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return f"a detection must be an object, got {entry!r:.80}."
    missing = [field for field in _FIELDS if field not in entry]
    if missing:
        return f"{missing[0]!r} is missing. Each detection needs {', '.join(_FIELDS)}."
    for field in ("image_id", "category_id"):
        value = entry[field]
        if type(value) is not int:
            number = whole_number(value)
            value = entry[field] = value if number is None else number
        if type(value) is not int or abs(value) >= ID_LIMIT:
            return f"{field!r} must be an integer id below 2^53, got {value!r:.80}."
    box, score = entry["bbox"], entry["score"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        return f"'bbox' must be 4 finite numbers [x, y, width, height], got {box!r:.80}."
    if not is_finite(score):
        return f"'score' must be a finite number, got {score!r:.80}."
    return None
