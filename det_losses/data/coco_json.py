"""Read and check COCO annotation files, so that errors are found before training."""

import functools
import json
import math
import os
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import Any

from det_losses.errors import InputError, MissingFileError

CocoDict = dict[str, list[dict[str, Any]]]

_KEYS = ("images", "annotations", "categories")


def load_coco_json(path: str | Path) -> CocoDict:
    """Read an annotation file for detection; the result is cached until the file changes.

    Missing values of ``iscrowd`` become 0, and of ``area`` width * height. ``segmentation`` is
    removed, because it takes most of the memory and is not needed for boxes. Callers share the
    result and must not change it.

    Raises:
        MissingFileError: No such file.
        InputError: Not a valid COCO file; the message names the file, the entry and the field.
    """
    return _load_cached(os.path.abspath(path), _modification_time(path))


def read_coco_json(path: str | Path) -> CocoDict:
    """Read and check an annotation file, keeping all fields."""
    _modification_time(path)
    try:
        with open(path, encoding="utf-8") as file:
            coco = json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a JSON file ({error}). Is it the annotation file, and is it complete?"
        ) from error
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
def _load_cached(path: str, modified: int) -> CocoDict:
    coco = read_coco_json(path)
    for annotation in coco["annotations"]:
        annotation.pop("segmentation", None)
        if annotation.get("iscrowd") is None:
            annotation["iscrowd"] = 0
        if annotation.get("area") is None:
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    return coco


def check_coco_json(coco: Any, path: str) -> None:
    """Check the contents of a detection annotation file.

    Args:
        coco: the parsed json.
        path: name of the file in error messages.

    Raises:
        InputError: Not a valid COCO file; the message names the file, the entry and the field.
    """
    missing = [k for k in _KEYS if not isinstance(coco, dict) or not isinstance(coco.get(k), list)]
    if missing:
        found = f"keys {sorted(coco)[:8]}" if isinstance(coco, dict) else f"a {type(coco).__name__}"
        raise InputError(
            f"{path}: not a COCO annotation file: it has no list {' or '.join(map(repr, missing))} "
            f"(found {found}). Give an instances json with {', '.join(map(repr, _KEYS))}."
        )
    if not coco["categories"]:
        raise InputError(f"{path}: 'categories' is empty. List all classes with id and name.")
    for key in _KEYS:
        for index, entry in enumerate(coco[key]):
            if not isinstance(entry, dict) or type(entry.get("id")) is not int:
                got = entry.get("id") if isinstance(entry, dict) else entry
                raise InputError(
                    f"{path}: {key}[{index}]: 'id' must be an integer, got {got!r}. Number the "
                    f"{key} with integers."
                )
        _check_unique((entry["id"] for entry in coco[key]), f"{path}: {key}: the id")
    _check_categories(coco["categories"], path)
    for index, image in enumerate(coco["images"]):
        _check_image(image, f"{path}: images[{index}] (id {image['id']})")
    image_ids = {image["id"] for image in coco["images"]}
    category_ids = {category["id"] for category in coco["categories"]}
    for index, annotation in enumerate(coco["annotations"]):
        _check_annotation(annotation, image_ids, category_ids, path, index)


def _check_unique(values: Iterable[Any], where: str) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise InputError(f"{where} {value!r} occurs twice. It must be unique.")
        seen.add(value)


def _check_categories(categories: list[dict[str, Any]], path: str) -> None:
    for index, category in enumerate(categories):
        if not isinstance(category.get("name"), str):
            raise InputError(
                f"{path}: categories[{index}] (id {category['id']}): 'name' must be a string, "
                f"got {category.get('name')!r}. Name the class."
            )
    _check_unique((c["name"] for c in categories), f"{path}: categories: the name")


def _check_image(image: dict[str, Any], where: str) -> None:
    if not isinstance(image.get("file_name"), str) or not image["file_name"]:
        raise InputError(
            f"{where}: 'file_name' must be the image's path inside the image folder, got "
            f"{image.get('file_name')!r}."
        )
    for side in ("width", "height"):
        if type(image.get(side)) is not int or image[side] <= 0:
            raise InputError(
                f"{where}: {side!r} must be a positive integer (pixels), got "
                f"{image.get(side)!r}. Set the size of the annotated image."
            )


def _check_annotation(
    annotation: dict[str, Any], image_ids: set, category_ids: set, path: str, index: int
) -> None:
    where = f"{path}: annotations[{index}] (id {annotation['id']})"
    for field, known, place in (
        ("image_id", image_ids, "images"),
        ("category_id", category_ids, "categories"),
    ):
        value = annotation.get(field)
        if type(value) is not int or value not in known:
            raise InputError(
                f"{where}: {field!r} is {value!r}, which is not an id in {place!r}. Add that entry "
                f"to {place!r}, or remove the annotation."
            )
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
        raise InputError(
            f"{where}: 'bbox' must be 4 finite numbers [x, y, width, height], got {box!r}. "
            "Correct or remove the annotation."
        )

    area, crowd = annotation.get("area"), annotation.get("iscrowd")
    if area is not None and (not _is_finite(area) or area < 0):
        raise InputError(
            f"{where}: 'area' must be a number of at least 0, got {area!r}. Correct it, or remove "
            "the field to use the area of the box."
        )
    if crowd not in (None, 0, 1):
        raise InputError(f"{where}: 'iscrowd' must be 0 or 1, got {crowd!r}. Correct it.")


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
