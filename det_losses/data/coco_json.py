"""Read and check COCO annotation files, so that errors are found before training."""

import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from det_losses.errors import InputError, MissingFileError, agreed, counted

CocoDict = dict[str, list[dict[str, Any]]]

ID_LIMIT = 2**53  # ids from here on are not exact in float64, in which detections are stored

_KEYS = ("images", "annotations", "categories")
_NUMBERS = (int, float)
_LARGEST_SIDE = 2**31 - 1  # pixels, of a PNG


def load_coco_json(path: str | Path) -> CocoDict:
    """Read an annotation file for detection; the result is cached until the file changes.

    Missing values of ``iscrowd`` become 0, and of ``area`` width * height. ``segmentation`` is
    removed, because it takes most of the memory and is not needed for boxes. Callers share the
    result and must not change it.

    Raises:
        MissingFileError: No such file.
        InputError: Not a valid COCO file; the message names the file, the entry and the field.
    """
    return _load_cached(os.path.abspath(path), _modification_time(path))[0]


def conversions(path: str | Path) -> tuple[str, ...]:
    """Return a sentence for each kind of value that reading the file converted or made."""
    return _load_cached(os.path.abspath(path), _modification_time(path))[1]


def read_coco_json(path: str | Path) -> CocoDict:
    """Read and check an annotation file, keeping all fields."""
    _modification_time(path)
    coco = parse_json(path, "Is it the annotation file, and is it complete?")
    check_coco_json(coco, str(path))
    return coco


def _modification_time(path: str | Path) -> int:
    if not os.path.isfile(path):
        raise MissingFileError(
            f"{path}: no such annotation file. Give the path of a COCO instances json "
            f"(relative paths start at {os.getcwd()})."
        )
    return os.stat(path).st_mtime_ns


@functools.lru_cache(maxsize=4)
def _load_cached(path: str, modified: int) -> tuple[CocoDict, tuple[str, ...]]:
    coco = parse_json(path, "Is it the annotation file, and is it complete?")
    made = check_coco_json(coco, path)
    without_area = 0
    for annotation in coco["annotations"]:
        annotation.pop("segmentation", None)
        if type(annotation.get("iscrowd")) is not int:  # None or a bool
            annotation["iscrowd"] = int(annotation.get("iscrowd") or 0)
        if annotation.get("area") is None:
            annotation["area"] = abs(annotation["bbox"][2] * annotation["bbox"][3])
            without_area += 1
    if without_area:
        made.append(
            f"{counted(without_area, 'annotation')} without 'area': that of the box is used"
        )
    return coco, (*_notes_of_conversion(coco), *made)


def _notes_of_conversion(coco: dict[str, Any]) -> list[str]:
    """Return what a conversion from another format stored (:mod:`det_losses.data.formats`)."""
    info = coco.get("info")
    return info["notes"] if isinstance(info, dict) and info.get("made_by") == "det_losses" else []


class _RepeatedKeyError(Exception):
    """A key occurs twice in one object of a json, of which json would keep the last."""


def parse_json(path: str | Path, advice: str) -> Any:
    """Parse a json in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        InputError: Not a JSON file, or a key occurs twice in one object.
    """
    try:
        return json.loads(Path(path).read_bytes(), object_pairs_hook=_unique_keys)
    except RecursionError:
        raise InputError(f"{path}: lists or objects are nested too deeply. {advice}") from None
    except _RepeatedKeyError as error:
        raise InputError(f"{path}: {error} Keep one of the two.") from None
    except ValueError as error:  # invalid JSON or encoding, or a number of thousands of digits
        raise InputError(f"{path}: not a JSON file ({error}). {advice}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        place = f" with id {found['id']!r:.40}" if "id" in found else ""
        raise _RepeatedKeyError(f"the key {twice!r:.80} occurs twice in one object{place}.")
    return found


def check_coco_json(coco: Any, path: str, *, files: bool = True) -> list[str]:
    """Check the contents of a detection annotation file, and convert what has a clear meaning.

    Converted in place: ids and sizes that are whole numbers as text or as floats, absent
    annotations (none), absent annotation ids or ids that are no numbers (numbered), absent boxes
    of annotations with polygons or a mask (the enclosing box).

    Args:
        coco: the parsed json.
        path: name of the file in error messages.
        files: whether names and sizes of image files are required, as for training.

    Returns:
        A sentence for each kind of value that was converted or made.

    Raises:
        InputError: Not a valid COCO file; the message names the file, the entry and the field.
    """
    made = _check_lists(coco, path)
    made += _convert(coco, files)
    made += _add_boxes(coco["annotations"])
    _check_ids(coco, path)
    _check_categories(coco["categories"], path)
    if files:
        _check_entries(coco, path, "images", _image_fault)
    image_ids = {image["id"] for image in coco["images"]}
    category_ids = {category["id"] for category in coco["categories"]}
    fault = functools.partial(_annotation_fault, image_ids, category_ids)
    _check_entries(coco, path, "annotations", fault)
    return made + _number_annotations(coco["annotations"])


def _check_lists(coco: Any, path: str) -> list[str]:
    made = []
    if isinstance(coco, dict) and "annotations" not in coco and {"images", "categories"} <= {*coco}:
        coco["annotations"] = []
        made.append("there is no list 'annotations', so no image has a box")
    missing = [k for k in _KEYS if not isinstance(coco, dict) or not isinstance(coco.get(k), list)]
    if missing:
        found = (
            f"keys {sorted(coco)[:8]!r:.200}"
            if isinstance(coco, dict)
            else f"a {type(coco).__name__}"
        )
        raise InputError(
            f"{path}: not a COCO annotation file: it has no list {' or '.join(map(repr, missing))} "
            f"(found {found}). Give an instances json with {', '.join(map(repr, _KEYS))}."
        )
    if not coco["categories"]:
        raise InputError(f"{path}: 'categories' is empty. List all classes with id and name.")
    for key in _KEYS:
        for index, entry in enumerate(coco[key]):
            if not isinstance(entry, dict):
                raise InputError(
                    f"{path}: {key}[{index}]: must be an object with an 'id', got {entry!r:.80}."
                )
    return made


def _convert(coco: CocoDict, files: bool) -> list[str]:
    """Convert whole numbers that are given as text or as floats, and count them."""
    fields = {"images": ["id"], "annotations": ["id", "image_id", "category_id"]}
    fields["categories"] = ["id"]
    if files:
        fields["images"] += ["width", "height"]
    count = 0
    for key, names in fields.items():
        for name in names:
            for entry in coco[key]:
                if type(entry.get(name)) is not int:
                    number = whole_number(entry.get(name))
                    if number is not None:
                        entry[name] = number
                        count += 1
    if not count:
        return []
    return [f"ids or sizes that are text or decimal numbers, read as whole numbers: {count}"]


def whole_number(value: Any) -> int | None:
    """Return a whole number given as an int, as text or as a float; None for anything else.

    >>> whole_number("7"), whole_number(7.0), whole_number(7.5), whole_number(True)
    (7, 7, None, None)
    """
    if type(value) is int:
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 16:
        return int(value)
    if isinstance(value, float) and abs(value) < ID_LIMIT and value == int(value):
        return int(value)
    return None


def _add_boxes(annotations: Iterable[dict[str, Any]]) -> list[str]:
    """Set absent boxes to the enclosing box of the polygons or the mask, and count them.

    An annotation whose polygons or mask are not valid stays without a box.
    """
    count = {"polygons": 0, "masks (RLE)": 0}
    for annotation in annotations:
        segmentation = annotation.get("segmentation")
        if annotation.get("bbox") or not segmentation:
            continue
        if isinstance(segmentation, list):
            kind, box = "polygons", _polygon_box(segmentation)
        else:
            kind, box = "masks (RLE)", _mask_box(segmentation)[0]
        if box:
            annotation["bbox"] = box
            count[kind] += 1
    return [
        f"{counted(number, 'annotation')} without 'bbox': the enclosing boxes of {kind} are used"
        for kind, number in count.items()
        if number
    ]


def _polygon_box(polygons: list[Any]) -> list[float] | None:
    numbers = [number for polygon in polygons if isinstance(polygon, list) for number in polygon]
    whole = all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in polygons)
    if not whole or not all(map(is_finite, numbers)):
        return None
    xs, ys = numbers[::2], numbers[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _mask_box(segmentation: Any) -> tuple[list[float] | None, str]:
    """Return the box of a mask, or None and what is wrong with the mask."""
    if not isinstance(segmentation, dict):
        return None, "it must be polygons, or an object with 'size' and 'counts'"
    from det_losses.data.rle import rle_box  # pycocotools: only data without boxes need it

    try:
        return rle_box(segmentation), ""
    except ValueError as error:
        return None, str(error)


def _check_ids(coco: CocoDict, path: str) -> None:
    for key in ("images", "categories"):
        for index, entry in enumerate(coco[key]):
            value = entry.get("id")
            if type(value) is not int or not 0 <= value < ID_LIMIT:
                raise InputError(
                    f"{path}: {key}[{index}]: 'id' must be an integer from 0 to 2^53 - 1, got "
                    f"{value!r:.80}. Number the {key} with such integers."
                )
    for key in _KEYS:
        numbers = [entry["id"] for entry in coco[key] if type(entry.get("id")) is int]
        _check_unique(numbers, f"{path}: {key}: the id")


def _check_unique(values: Sequence[Any], where: str) -> None:
    if len(set(values)) == len(values):
        return
    seen = set()
    for value in values:
        if value in seen:
            raise InputError(f"{where} {value!r:.80} occurs twice. It must be unique.")
        seen.add(value)


def _check_categories(categories: list[dict[str, Any]], path: str) -> None:
    for index, category in enumerate(categories):
        name = category.get("name")
        where = f"{path}: categories[{index}] (id {category['id']}): 'name'"
        if not isinstance(name, str):
            raise InputError(f"{where} must be a string, got {name!r:.80}. Name the class.")
        if not _is_unicode(name):
            raise InputError(
                f"{where} is not valid Unicode: {name!r:.80} has half of a surrogate pair. Write "
                "the whole character."
            )
    _check_unique([c["name"] for c in categories], f"{path}: categories: the name")


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_entries(
    coco: CocoDict, path: str, key: str, fault: Callable[[dict[str, Any]], str | None]
) -> None:
    """Raise an error with the first fault and the number of further entries with one."""
    first, further = None, 0
    for index, entry in enumerate(coco[key]):
        found = fault(entry)
        if found and first is None:
            first = f"{path}: {key}[{index}] (id {entry.get('id')!r:.40}): {found}"
        elif found:
            further += 1
    if first is not None:
        have = agreed(further, "have")
        more = f" {further} more of the {len(coco[key])} {key} {have} errors." if further else ""
        raise InputError(first + more)


def _image_fault(image: dict[str, Any]) -> str | None:
    name = image.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name or not _is_path(name):
        return (
            "'file_name' must be the image's path inside the image folder, got "
            f"{name!r:.80}. Set it, or remove the image."
        )
    for side in ("width", "height"):
        size = image.get(side)
        if type(size) is not int or not 0 < size <= _LARGEST_SIDE:
            return (
                f"{side!r} must be a positive integer (pixels), got {size!r:.80}. Set the size of "
                "the annotated image."
            )
    return None


def _is_path(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _annotation_fault(
    image_ids: set[int], category_ids: set[int], annotation: dict[str, Any]
) -> str | None:
    get = annotation.get
    for field, known, place in (
        ("image_id", image_ids, "images"),
        ("category_id", category_ids, "categories"),
    ):
        value = get(field)
        if type(value) is not int or value not in known:
            return (
                f"{field!r} is {value!r:.80}, which is not an id in {place!r}. Add that entry "
                f"to {place!r}, or remove the annotation."
            )
    box = get("bbox")
    if not box and isinstance(get("segmentation"), dict):
        return (
            f"there is no 'bbox', and 'segmentation' is not a mask: "
            f"{_mask_box(get('segmentation'))[1]}. Correct or remove the annotation."
        )
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        return (
            f"'bbox' must be 4 finite numbers [x, y, width, height], got {box!r:.80}. "
            "Correct or remove the annotation."
        )
    area, crowd = get("area"), get("iscrowd")
    if area is not None and (not is_finite(area) or area < 0):
        return (
            f"'area' must be a number of at least 0, got {area!r:.80}. Correct it, or remove "
            "the field to use the area of the box."
        )
    if crowd not in (None, 0, 1):
        return f"'iscrowd' must be 0 or 1, got {crowd!r:.80}. Correct it."
    return None


def is_finite(value: Any) -> bool:
    """Return whether a value is a number whose magnitude float64 and float32 can represent."""
    if type(value) not in _NUMBERS and (not isinstance(value, Real) or isinstance(value, bool)):
        return False
    return -ID_LIMIT < value < ID_LIMIT


def _number_annotations(annotations: Iterable[dict[str, Any]]) -> list[str]:
    """Number the annotations whose id is absent or not a number, after the largest id."""
    absent = [a for a in annotations if type(a.get("id")) is not int]
    largest = max((a["id"] for a in annotations if type(a.get("id")) is int), default=0)
    for number, annotation in enumerate(absent, start=largest + 1):
        annotation["id"] = number
    if not absent:
        return []
    return [f"{counted(len(absent), 'annotation')} without an id that is a number: numbered"]
