"""COCO ground truth as json and as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from det_losses.data.box_faults import (
    clipped_corners,
    describe_faults,
    find_faults,
    without_area,
    wrong_format,
)
from det_losses.data.coco_json import check_coco_json, parse_json
from det_losses.errors import InputError, MissingFileError
from det_losses.evaluation.metrics import AREAS


class GroundTruth:
    """The ground truth that result files are matched with.

    Attributes:
        image_ids: ``[I]`` int64, ascending.
        category_ids: ``[K]`` int64, ascending.
        names: the K class names, in the order of ``category_ids``.
        boxes: ``[G, 4]`` float64: x, y, width, height in pixels, in the order of the json.
        areas: ``[G]`` float64, pixels^2: the area in the annotation, or width * height without one.
        crowds: ``[G]`` bool.
        image_index: ``[G]`` index of each box's image in ``image_ids``.
        category_index: ``[G]`` index of each box's class in ``category_ids``.

    Args:
        source: a COCO json as a dict, or the path of its file, see :func:`read_truth`. Names and
            sizes of image files are not needed.

    Raises:
        MissingFileError: no such file.
        InputError: not a valid COCO json; the message names the entry and the field.
    """

    def __init__(self, source: Mapping[str, Any] | str | Path) -> None:
        if isinstance(source, str | Path):
            coco = read_truth(source)[0]
        else:
            coco = source
            check_coco_json(coco, "ground truth", files=False)
        self.image_ids = _sorted_ids(coco["images"])
        self.category_ids = _sorted_ids(coco["categories"])
        names = {category["id"]: category["name"] for category in coco["categories"]}
        self.names = tuple(names[category_id] for category_id in self.category_ids.tolist())
        found = coco["annotations"]
        self.boxes = np.array([a["bbox"] for a in found], dtype=np.float64).reshape(-1, 4)
        self.areas = np.array([_area(a) for a in found], dtype=np.float64)
        self.crowds = np.array([bool(a.get("iscrowd")) for a in found], dtype=bool)
        self.image_index = _index(self.image_ids, [a["image_id"] for a in found])
        self.category_index = _index(self.category_ids, [a["category_id"] for a in found])

    @cached_property
    def population(self) -> "Population":
        """The boxes on each image, crowds excluded: the part needed for recall."""
        cells = self.category_index[:, None] * len(AREAS) + np.arange(len(AREAS))
        row, area = np.nonzero(~self.outside())
        return Population(
            images=len(self.image_ids),
            names=self.names,
            image=self.image_index[row].astype(np.int32),
            cell=cells[row, area].astype(np.int32),
        )

    def locate(
        self, detections: np.ndarray, where: str = "detections"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Look up the images and classes of detections.

        Args:
            detections: ``[N, 7]``: image id, x, y, width, height, score, category id.
            where: name of the detections in error messages.

        Returns:
            ``[N]`` and ``[N]``: indices in ``image_ids`` and ``category_ids``.

        Raises:
            InputError: the ground truth does not have an id.
        """
        image = _look_up(self.image_ids, detections[:, 0], "image", where)
        return image, _look_up(self.category_ids, detections[:, 6], "category", where)

    def outside(self) -> np.ndarray:
        """Return ``[G, A]``: whether a box is ignored in each of AREAS. Crowds always are."""
        low, high = np.array(list(AREAS.values())).T
        area = self.areas[:, None]
        return self.crowds[:, None] | (area < low) | (area > high)


@dataclass(frozen=True, eq=False)
class Population:
    """The boxes of each image, class and area, crowds excluded.

    Attributes:
        images: number of images.
        names: class names by ascending category id.
        image: ``[N]`` image index; a box is listed once per area range that contains it.
        cell: ``[N]`` class index * A + area index.
    """

    images: int
    names: tuple[str, ...]
    image: np.ndarray
    cell: np.ndarray

    def same(self, other: "Population") -> bool:
        """Return whether both belong to the same ground truth."""
        return self is other or (
            (self.images, self.names) == (other.images, other.names)
            and np.array_equal(self.image, other.image)
            and np.array_equal(self.cell, other.cell)
        )


def read_truth(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Read a ground truth that detections are compared with.

    Like in an evaluation of :class:`~det_losses.data.coco.CocoDataset`, boxes without area inside
    their image are left out.

    Args:
        path: a COCO json. Names of image files are not needed; without sizes of images, no box
            counts as outside.

    Returns:
        The COCO json, and sentences on what was converted, left out or looks wrong.

    Raises:
        MissingFileError: no such file.
        InputError: not a valid COCO json; the message names the file, the entry and the field.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"{path}: no such file; give the COCO json of the evaluated images")
    coco = parse_json(path, "Is it the annotation file, and is it complete?")
    notes = check_coco_json(coco, str(path), files=False)
    found = coco["annotations"]
    boxes = np.array([a["bbox"] for a in found], dtype=np.float64).reshape(-1, 4)
    sizes = image_sizes(coco, [a["image_id"] for a in found])
    names = {image["id"]: str(image.get("file_name", image["id"])) for image in coco["images"]}
    faults = find_faults(boxes, sizes)
    notes += wrong_format(boxes, sizes)
    notes += describe_faults(faults, [names[a["image_id"]] for a in found], evaluation=True)
    void = without_area(clipped_corners(boxes, sizes)).tolist()
    coco["annotations"] = [a for a, left_out in zip(found, void, strict=True) if not left_out]
    return coco, notes


def suspect(coco: Mapping[str, Any], detections: np.ndarray) -> list[str]:
    """Return a sentence if detections are probably not x, y, width, height in pixels.

    Args:
        coco: the ground truth.
        detections: ``[N, 7]``, see :func:`~det_losses.evaluation.result_file.read_detections`.
    """
    known = {image["id"] for image in coco["images"]}
    rows = detections[np.isin(detections[:, 0], list(known))]
    return wrong_format(rows[:, 1:5], image_sizes(coco, rows[:, 0].astype(np.int64).tolist()))


def image_sizes(coco: Mapping[str, Any], image_ids: Sequence[int]) -> np.ndarray:
    """Return ``[N, 2]``: width and height of the images with these ids, infinite if unknown."""
    sizes = {
        image["id"]: [_side(image.get("width")), _side(image.get("height"))]
        for image in coco["images"]
    }
    return np.array([sizes[image_id] for image_id in image_ids]).reshape(-1, 2)


def _side(value: Any) -> float:
    return value if type(value) in (int, float) and value > 0 else np.inf


def ground_truth_json(
    results: Sequence[Mapping[str, Any]], classes: Mapping[int, str]
) -> dict[str, list[dict[str, Any]]]:
    """Return the ground truth of an evaluation as a COCO json.

    Args:
        results: for each image ``image`` and ``annotations``, entries of its json.
        classes: class name of each category id.
    """
    found = [annotation for result in results for annotation in result["annotations"]]
    # Renumbered from 1, because the id 0 means "no match" in COCO's evaluation.
    annotations = [
        dict(
            id=number,
            image_id=annotation["image_id"],
            category_id=annotation["category_id"],
            bbox=list(annotation["bbox"]),
            area=annotation["area"],
            iscrowd=annotation["iscrowd"],
        )
        for number, annotation in enumerate(found, 1)
    ]
    categories = [dict(id=category_id, name=name) for category_id, name in classes.items()]
    images = [dict(result["image"]) for result in results]
    return {"images": images, "annotations": annotations, "categories": categories}


def _sorted_ids(entries: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array(sorted(entry["id"] for entry in entries), dtype=np.int64)


def _index(ids: np.ndarray, values: Sequence[int]) -> np.ndarray:
    return np.searchsorted(ids, np.array(values, dtype=np.int64))


def _area(annotation: Mapping[str, Any]) -> float:
    area = annotation.get("area")
    return annotation["bbox"][2] * annotation["bbox"][3] if area is None else area


def _look_up(ids: np.ndarray, wanted: np.ndarray, kind: str, where: str) -> np.ndarray:
    index = np.searchsorted(ids, wanted)
    unknown = np.append(ids, np.nan)[index] != wanted
    if unknown.any():
        row = int(np.argmax(unknown))
        raise InputError(
            f"{where}[{row}]: {kind}_id {wanted[row]:.16g} is not in the ground truth. Use "
            "the annotation file of the images that the detections belong to."
        )
    return index
