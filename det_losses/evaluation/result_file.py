"""Read, check and write COCO result files."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from det_losses.data.coco_json import ID_LIMIT, is_finite, parse_json, whole_number
from det_losses.errors import InputError, MissingFileError, agreed
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.files import write_bytes

_FIELDS = ("image_id", "category_id", "bbox", "score")
_ENTRY = b'{"image_id": %d, "category_id": %d, "bbox": [%b], "score": %b}'
# In the layout of a file, a control character, which JSON does not have, stands for each field.
_SIGNS = {b'"image_id"': b"\1", b'"bbox"': b"\2", b'"score"': b"\3", b'"category_id"': b"\4"}
_COLUMNS = {b"\1:": [0], b"\2:[]": [1, 2, 3, 4], b"\3:": [5], b"\4:": [6]}  # of the detections
_NUMBER = b"0123456789.eE+-"
_BLANKS = bytes(c if c in _NUMBER + b"," else ord(" ") for c in range(256))


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
    detections = _plain_rows(path.read_bytes())
    if detections is None:
        detections = _checked_rows(path)
    if truth is not None:
        truth.locate(detections, f"{path}: ")
    return detections


def write_detections(path: str | Path, detections: np.ndarray) -> None:
    """Write detections, ``[N, 7]`` as of :func:`read_detections`, without rounding; atomically.

    Entries are made from the text of all boxes and all scores, without a dict for each.
    """
    entries = []
    if len(detections):
        boxes = _text(detections[:, 1:5])[2:-2].split(b"],[")
        scores = _text(detections[:, 5])[1:-1].split(b",")
        images, classes = detections[:, [0, 6]].astype(np.int64).T.tolist()
        rows = zip(images, classes, boxes, scores, strict=True)
        entries = [_ENTRY % row for row in rows]
    write_bytes(path, b"[" + b", ".join(entries) + b"]\n")


def _text(numbers: np.ndarray) -> bytes:
    return orjson.dumps(np.ascontiguousarray(numbers), option=orjson.OPT_SERIALIZE_NUMPY)


def _plain_rows(text: bytes) -> np.ndarray | None:
    """Parse a file in which each entry looks like the first one, apart from its numbers.

    That is what programs write. It takes a third of the time of a JSON parser, which makes a dict
    of each entry.

    Returns:
        ``[N, 7]``; None if the file is of another form or has a number that may be wrong, so that
        it has to be parsed and checked entry by entry.
    """
    if any(sign in text for sign in _SIGNS.values()):
        return None
    for name, sign in _SIGNS.items():
        text = text.replace(name, sign)
    layout = text.translate(None, _NUMBER).rstrip()
    end = layout.find(b"}") + 1
    entry, separator = layout[1:end], layout[end : layout.find(b"{", end)]
    fields = entry.translate(None, b" \n\r\t").replace(b"[,,,]", b"[]")[1:-1].split(b",")
    count = layout.count(b"}")
    if (
        sorted(fields) != sorted(_COLUMNS)
        or separator.strip() != (b"," if count > 1 else b"")
        or layout != b"[" + separator.join([entry] * count) + b"]"
    ):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # of what is not a number
        try:
            numbers = np.fromstring(text.translate(_BLANKS), sep=" ,")
        except (DeprecationWarning, ValueError):
            return None
    if numbers.size != 7 * count:
        return None
    detections = np.empty((count, 7))
    columns = [column for field in fields for column in _COLUMNS[field]]
    detections[:, columns] = numbers.reshape(count, 7)
    ids = detections[:, [0, 6]]
    sound = np.isfinite(detections).all() and (ids == np.trunc(ids)).all()
    return detections if sound and (abs(ids) < ID_LIMIT).all() else None


def _checked_rows(path: Path) -> np.ndarray:
    """Parse a file entry by entry."""
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
    return np.array(rows, dtype=np.float64).reshape(-1, 7)


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
