"""Writing a subset of COCO files as files of their own, with a manifest of what was chosen."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from det_losses.data.coco_json import CocoDict, read_coco_json
from det_losses.data.selection import select_categories, select_images
from det_losses.files import write_json

_OUTPUTS = ("train.json", "val.json", "manifest.json")


def make_subset(
    out_dir: str | Path,
    train_ann: str | Path,
    val_ann: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    num_train: int | None = None,
    num_val: int | None = None,
    seed: int = 0,
    keep_negatives: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write train.json, val.json and manifest.json of a subset into ``out_dir``.

    The images are those that :class:`~det_losses.data.coco.CocoDataset` takes from the source with
    the same classes, number and seed; both files have the same categories with their official ids.
    Images are not copied: train and test with the source's image folders.

    Args:
        out_dir: Folder to write into; made where missing.
        train_ann: COCO json that the training images are chosen from.
        val_ann: COCO json of the validation images. None, or a file of the same content: one json
            is split, so that no image is in both; ``num_val`` is needed then.
        classes: Names of the classes; None for all.
        num_train: Number of training images; None for all (that are not in val).
        num_val: Number of validation images; None for all.
        seed: Seed of the choice.
        keep_negatives: val.json keeps images without the chosen classes, so that detections on them
            count as false positives. train.json never has them where classes are chosen.
        overwrite: Replace the files of an earlier call.

    Returns:
        The manifest: ``sources`` (path, sha256), ``seed``, ``classes``, ``category_ids`` and so on,
        and for ``train`` and ``val`` the image ids and the counts per class.

    Raises:
        FileExistsError: A file would be overwritten.
        FileNotFoundError: A source is missing.
        ValueError: A source is not sound, the sources' categories differ, a class is unknown, there
            are too few images, or ``num_val`` is missing for a split.
    """
    out_dir = Path(out_dir)
    existing = [name for name in _OUTPUTS if (out_dir / name).exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"{out_dir}: {', '.join(existing)} exist already. Choose another folder, or ask for "
            "overwriting."
        )
    val_ann = train_ann if val_ann is None else val_ann
    train, val = read_coco_json(train_ann), read_coco_json(val_ann)
    sources = {"train": _source(train_ann), "val": _source(val_ann)}
    split = sources["train"]["sha256"] == sources["val"]["sha256"]
    if split and num_val is None:
        raise ValueError(
            f"num_val is needed to split {train_ann} into train and val: say how many of its "
            "images are for validation, or give another file for val"
        )
    categories = select_categories(train, classes, str(train_ann))
    _check_same_categories(categories, val, classes, str(train_ann), str(val_ann))
    chosen = None if classes is None else {category_id for category_id, _ in categories}
    val_ids = select_images(val, chosen, num_val, seed, keep_negatives, source=str(val_ann))
    train_ids = select_images(
        train, chosen, num_train, seed, exclude=val_ids if split else (), source=str(train_ann)
    )
    parts = {
        "train": _restrict(train, train_ids, dict(categories)),
        "val": _restrict(val, val_ids, dict(categories)),
    }
    manifest = {
        "sources": sources,
        "seed": seed,
        "num_train": num_train,
        "num_val": num_val,
        "keep_negatives": keep_negatives,
        "classes": [name for _, name in categories],
        "category_ids": [category_id for category_id, _ in categories],
        **{name: _describe(part) for name, part in parts.items()},
    }
    for name, part in parts.items():
        write_json(out_dir / f"{name}.json", part)
    write_json(out_dir / "manifest.json", manifest, indent=1)
    return manifest


def _source(path: str | Path) -> dict[str, str]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"path": str(path), "sha256": digest.hexdigest()}


def _check_same_categories(
    categories: list[tuple[int, str]],
    val: CocoDict,
    classes: Sequence[str] | None,
    train_ann: str,
    val_ann: str,
) -> None:
    other = select_categories(val, classes, val_ann)
    if other != categories:
        differing = sorted(set(categories) ^ set(other))[:4]
        raise ValueError(
            f"{train_ann} and {val_ann} differ in their categories (id, name), as in {differing}. "
            "Give both files the same ids and names, or choose classes that they share."
        )


def _restrict(coco: CocoDict, image_ids: list[int], names: dict[int, str]) -> CocoDict:
    ids = set(image_ids)
    return {
        **coco,
        "images": sorted((i for i in coco["images"] if i["id"] in ids), key=lambda i: i["id"]),
        "annotations": [
            a for a in coco["annotations"] if a["image_id"] in ids and a["category_id"] in names
        ],
        "categories": [c for c in coco["categories"] if c["id"] in names],
    }


def _describe(coco: CocoDict) -> dict[str, Any]:
    """Image ids, and per class: images with a box, boxes and crowds (in none of the others)."""
    per_class = {}
    for category in sorted(coco["categories"], key=lambda c: c["id"]):
        own = [a for a in coco["annotations"] if a["category_id"] == category["id"]]
        boxes = [a for a in own if not a.get("iscrowd", 0)]
        per_class[category["name"]] = {
            "images": len({a["image_id"] for a in boxes}),
            "boxes": len(boxes),
            "crowds": len(own) - len(boxes),
        }
    return {
        "num_images": len(coco["images"]),
        "num_boxes": sum(counts["boxes"] for counts in per_class.values()),
        "per_class": per_class,
        "image_ids": [image["id"] for image in coco["images"]],
    }
