"""Folds of a COCO file: every image is evaluated by the models that were not trained on it."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from det_losses.data.coco_json import CocoDict
from det_losses.errors import InputError

_SIMILAR_KEYS = 8  # of an image entry, in an error message


def assign_folds(
    coco: CocoDict,
    image_ids: Sequence[int],
    category_ids: Collection[int],
    count: int,
    key: str | None = None,
    *,
    source: str = "the annotation file",
) -> dict[int, int]:
    """Divide images into folds of about equal size, with about equally many images of each class.

    Groups of images are assigned one after the other, the largest first and then those with the
    rarest class. Of the folds that a group fits into, it goes to the one with the fewest images of
    its classes. The result depends neither on the order of the json nor on random numbers.

    Args:
        coco: as read by :func:`~det_losses.data.coco_json.load_coco_json`.
        image_ids: the images to divide.
        category_ids: the classes to balance.
        count: number of folds, K, at least 2.
        key: entry of the json's images, such as ``"video_id"``: images with the same value stay in
            one fold. None: every image is on its own.
        source: name of the file in error messages.

    Returns:
        Image id -> fold, 0 to K - 1.

    Raises:
        InputError: K is below 2, there are fewer groups than folds, an image lacks the key, or a
            fold has no boxes.
    """
    if type(count) is not int or count < 2:
        raise InputError(f"folds: the count must be a whole number of at least 2, got {count!r}")
    groups = _groups(coco, image_ids, key, source)
    if len(groups) < count:
        what = "images" if key is None else f"different values of {key!r}"
        raise InputError(
            f"{source}: {count} folds need at least {count} {what}, got {len(groups)}. Use fewer "
            "folds"
        )
    present = _images_with_class(coco, category_ids)
    counts = np.array(
        [[sum(i in images for i in group) for images in present] for group in groups]
    ).reshape(len(groups), -1)
    fold_of_group = _assign(groups, counts, count)
    boxes = np.bincount(fold_of_group, weights=counts.sum(axis=1), minlength=count)
    if not boxes.all():
        raise InputError(
            f"{source}: with {count} folds, one of them has no boxes of the chosen classes. Use "
            "fewer folds"
        )
    return {i: int(fold) for group, fold in zip(groups, fold_of_group, strict=True) for i in group}


def classes_in_one_fold(coco: Mapping[str, Any]) -> list[str]:
    """Return the classes whose boxes are all in one fold, where no model was trained on them.

    Args:
        coco: a COCO json with the ``fold`` of each image.
    """
    fold_of = {image["id"]: image["fold"] for image in coco["images"]}
    pairs = {
        (box["category_id"], fold_of[box["image_id"]])
        for box in coco["annotations"]
        if not box.get("iscrowd")
    }
    folds = Counter(category_id for category_id, _ in pairs)
    return [c["name"] for c in coco["categories"] if folds[c["id"]] == 1]


def _groups(
    coco: CocoDict, image_ids: Sequence[int], key: str | None, source: str
) -> list[list[int]]:
    """Return the images of each group, both in an order that does not depend on the json's."""
    entries = {image["id"]: image for image in coco["images"]}
    groups: dict[str, list[int]] = {}
    for image_id in sorted(image_ids):
        value = image_id if key is None else entries[image_id].get(key)
        if value is None:
            known = ", ".join(sorted(entries[image_id])[:_SIMILAR_KEYS])
            raise InputError(
                f"{source}: the image {entries[image_id]['file_name']} has no {key!r} to group it "
                f"by; it has {known}"
            )
        groups.setdefault(json.dumps(value, sort_keys=True), []).append(image_id)
    return list(groups.values())


def _images_with_class(coco: CocoDict, category_ids: Collection[int]) -> list[set[int]]:
    found: dict[int, set[int]] = {category_id: set() for category_id in category_ids}
    for box in coco["annotations"]:
        if box["category_id"] in found and not box.get("iscrowd", 0):
            found[box["category_id"]].add(box["image_id"])
    return list(found.values())


def _assign(groups: Sequence[Sequence[int]], counts: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold of each group.

    Args:
        groups: the images of each group.
        counts: [G, C], number of the group's images with each class.
        folds: number of folds.
    """
    sizes = np.array([len(group) for group in groups])
    total = np.maximum(counts.sum(axis=0), 1)
    rarest = np.where(counts > 0, total, counts.sum() + 1).min(axis=1, initial=counts.sum() + 1)
    capacity = -(-sizes.sum() // folds)
    images, classes = np.zeros(folds), np.zeros((folds, counts.shape[1]))
    found = np.zeros(len(groups), dtype=int)
    for group in sorted(
        range(len(groups)), key=lambda g: (-sizes[g], rarest[g], _rank(groups[g][0]))
    ):
        full = images + sizes[group] > capacity
        shared = np.where(full, np.inf, (classes * (counts[group] / total**2)).sum(axis=1))
        fold = np.lexsort((images, shared))[0] if not full.all() else np.argmin(images)
        found[group] = fold
        images[fold] += sizes[group]
        classes[fold] += counts[group]
    return found


def _rank(image_id: int) -> bytes:
    return hashlib.sha256(f"fold:{image_id}".encode()).digest()
