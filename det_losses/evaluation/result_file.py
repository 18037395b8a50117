"""Read and check COCO result files."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from det_losses.errors import InputError, MissingFileError
from det_losses.evaluation.ground_truth import LARGEST_ID, GroundTruth

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
    try:
        entries = json.loads(path.read_bytes())
    except ValueError as error:  # invalid JSON or encoding
        raise InputError(f"{path}: not a JSON file ({error}). Is it complete?") from error
    if not isinstance(entries, list):
        raise InputError(
            f"{path}: a COCO result file is a list of detections, found a "
            f"{type(entries).__name__}. Give the detections, not the annotations."
        )
    for index, entry in enumerate(entries):
        fault = _fault(entry)
        if fault:
            raise InputError(f"{path}: [{index}]: {fault}")
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
        if type(value) is not int or abs(value) > LARGEST_ID:
            return f"{field!r} must be an integer id below 2^53, got {value!r:.80}."
    box, score = entry["bbox"], entry["score"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
        return f"'bbox' must be 4 finite numbers [x, y, width, height], got {box!r:.80}."
    if not _is_finite(score):
        return f"'score' must be a finite number, got {score!r:.80}."
    return None


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
