"""Subsets of a COCO file by classes and number of images, in memory or as files.

:class:`~det_losses.data.coco.CocoDataset` and :func:`make_subset` select the same images for the
same classes, number and seed.
"""

import hashlib
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from det_losses.data.coco_json import CocoDict, read_coco_json
from det_losses.errors import ExistingFileError, InputError, InputTypeError, did_you_mean
from det_losses.files import write_json

_OUTPUTS = ("train.json", "val.json", "manifest.json")


def select_categories(
    coco: CocoDict, classes: Sequence[str] | None, source: str
) -> list[tuple[int, str]]:
    """Return (official id, name) of each class: in the given order, or all by ascending id.

    Raises:
        InputTypeError: ``classes`` is not a list of names.
        InputError: A name is unknown (the nearest ones are suggested) or repeated, or the list is
            empty.
    """
    ids = {category["name"]: category["id"] for category in coco["categories"]}
    if classes is None:
        return sorted((category_id, name) for name, category_id in ids.items())
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise InputTypeError(f"classes must be a list of class names, got {classes!r}")
    if not classes:
        raise InputError("classes is empty; give at least one class, or None for all classes")
    for name in classes:
        if name not in ids:
            hint = f"{did_you_mean(name, ids)} The classes are {', '.join(sorted(ids))}.".lstrip()
            raise InputError(f"{source}: no class {name!r}. {hint}")
        if list(classes).count(name) > 1:
            raise InputError(f"classes contains {name!r} twice")
    return [(ids[name], name) for name in classes]


def match_categories(
    coco: CocoDict, labels: Sequence[str], classes: Sequence[str] | None, source: str
) -> list[tuple[int, str]]:
    """Return (official id, name) of each label, by the json's class of that name.

    A label that the json lacks gets an id that the json does not use.

    Args:
        coco: as read by :func:`~det_losses.data.coco_json.load_coco_json`.
        labels: names of the classes by label, as those of the training data.
        classes: the classes that were chosen, so that boxes of others are ignored; None: all.
        source: name of the file in error messages.

    Raises:
        InputError: without chosen classes, the json has boxes of a class that is not a label; or
            they have no class in common.
    """
    names = {category["id"]: category["name"] for category in coco["categories"]}
    ids = {n: i for i, n in names.items() if classes is None or n in classes}
    used = {names[annotation["category_id"]] for annotation in coco["annotations"]}
    common = [name for name in labels if name in ids]
    others = sorted(used - set(labels)) if classes is None else []
    if others or not common:
        parts = [
            f"only in {where}: {', '.join(some[:8])}{', ...' if len(some) > 8 else ''}"
            for where, some in (
                (source, others or sorted(ids)),
                ("the training data", [name for name in labels if name not in ids]),
            )
            if some
        ]
        advice = "Give files with the same class names."
        if common:
            advice = (
                f"To use the common classes only, add --classes {shlex.join(common)}; images "
                "without them are kept."
            )
        raise InputError(
            f"training and validation data have different classes, {'; '.join(parts)}. {advice}"
        )
    free = max(names) + 1
    absent = {name: free + i for i, name in enumerate(n for n in labels if n not in ids)}
    return [({**absent, **ids}[name], name) for name in labels]


def select_images(
    coco: CocoDict,
    category_ids: Collection[int] | None = None,
    num_images: int | None = None,
    seed: int = 0,
    keep_negatives: bool = False,
    *,
    exclude: Collection[int] = (),
    source: str = "the annotation file",
) -> list[int]:
    """Select images by ``seed``, independently of their order in the file.

    Images are ranked by a hash of seed and image id, and the first ``num_images`` are selected. So
    for one seed, a smaller subset is part of every larger one, on all machines and versions.

    Args:
        coco: As read by :func:`~det_losses.data.coco_json.load_coco_json`.
        category_ids: The chosen classes: only images with a box of these (crowds excluded) are
            candidates. None: all images.
        num_images: Number of images; None for all candidates.
        seed: Seed of the ranking.
        keep_negatives: All images are candidates, with or without the chosen classes.
        exclude: Image ids that are not candidates.
        source: Name of the file in error messages.

    Returns:
        Image ids in ascending order.

    Raises:
        InputError: ``num_images`` is not positive, or there are too few candidates.
    """
    if num_images is not None and not (isinstance(num_images, int) and num_images >= 1):
        raise InputError(f"num_images must be at least 1, or None for all; got {num_images!r}")
    candidates = {image["id"] for image in coco["images"]}
    what = "images"
    if category_ids is not None and not keep_negatives:
        what = "images with a box of the chosen classes"
        candidates = {
            annotation["image_id"]
            for annotation in coco["annotations"]
            if annotation["category_id"] in category_ids and not annotation.get("iscrowd", 0)
        }
    candidates -= set(exclude)
    wanted = len(candidates) if num_images is None else num_images
    if not candidates or wanted > len(candidates):
        left = " outside the other split" if exclude else ""
        asked = f"{num_images} images requested, but " if num_images is not None else ""
        raise InputError(
            f"{source}: {asked}there are {len(candidates)} {what}{left}. Use fewer images or "
            "choose other classes."
        )
    return sorted(sorted(candidates, key=lambda image_id: _rank(seed, image_id))[:wanted])


def _rank(seed: int, image_id: int) -> bytes:
    return hashlib.sha256(f"{seed}:{image_id}".encode()).digest()


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

    The images are those that :class:`~det_losses.data.coco.CocoDataset` selects from the source
    with the same classes, number and seed. Both files have the same classes, with the ids of their
    source. Images are not copied: use the image folders of the source.

    Args:
        out_dir: Output folder, which is created if missing.
        train_ann: COCO json from which the training images are selected.
        val_ann: COCO json of the validation images. If None, or a file with the same content,
            the json is split so that no image is in both parts; ``num_val`` is then required.
        classes: Names of the classes; None for all.
        num_train: Number of training images; None for all that are not in val.
        num_val: Number of validation images; None for all.
        seed: Seed of the selection.
        keep_negatives: Keep images without the chosen classes in val.json, so that detections on
            them count as false positives. If ``classes`` is given, train.json never has such
            images.
        overwrite: Replace existing output files.

    Returns:
        The manifest: ``sources`` (path, sha256), ``seed``, ``classes``, ``category_ids`` and so on,
        and for ``train`` and ``val`` the image ids and the counts per class.

    Raises:
        ExistingFileError: A file would be overwritten.
        MissingFileError: A source is missing.
        InputError: A source is not valid, the sources' classes differ, a class is unknown, there
            are too few images, or ``num_val`` is required.
    """
    out_dir = Path(out_dir)
    if not overwrite:
        _check_no_outputs(out_dir)
    val_ann = train_ann if val_ann is None else val_ann
    train, val = read_coco_json(train_ann), read_coco_json(val_ann)
    sources = {"train": _source(train_ann), "val": _source(val_ann)}
    split = sources["train"]["sha256"] == sources["val"]["sha256"]
    if split and num_val is None:
        raise InputError(
            f"num_val is required to split {train_ann} into train and val: give the number of "
            "validation images, or another file for val"
        )
    categories = select_categories(train, classes, str(train_ann))
    val_categories = select_categories(val, classes, str(val_ann))
    _check_same_classes(categories, val_categories, str(train_ann), str(val_ann))
    chosen, val_chosen = (
        None if classes is None else {category_id for category_id, _ in own}
        for own in (categories, val_categories)
    )
    val_ids = select_images(val, val_chosen, num_val, seed, keep_negatives, source=str(val_ann))
    train_ids = select_images(
        train, chosen, num_train, seed, exclude=val_ids if split else (), source=str(train_ann)
    )
    parts = {
        "train": _restrict(train, train_ids, dict(categories)),
        "val": _restrict(val, val_ids, dict(val_categories)),
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
    new = [file for name in _OUTPUTS if not (file := out_dir / name).exists()]
    try:
        for name, part in parts.items():
            write_json(out_dir / f"{name}.json", part)
        write_json(out_dir / "manifest.json", manifest, indent=1)
    except BaseException:  # a full disk, Ctrl-C: otherwise the same command would be refused
        for file in new:
            file.unlink(missing_ok=True)
        raise
    return manifest


def _check_no_outputs(out_dir: Path) -> None:
    existing = [name for name in _OUTPUTS if (out_dir / name).exists()]
    if existing:
        raise ExistingFileError(
            f"{out_dir} already contains {', '.join(existing)}. Choose another folder, or allow "
            "overwriting."
        )


def _source(path: str | Path) -> dict[str, str]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"path": str(path), "sha256": digest.hexdigest()}


def _check_same_classes(
    train: list[tuple[int, str]], val: list[tuple[int, str]], train_ann: str, val_ann: str
) -> None:
    """Check that two files have the same class names; their ids may differ."""
    ours, theirs = ([name for _, name in categories] for categories in (train, val))
    if set(ours) == set(theirs):
        return
    common = [name for name in ours if name in theirs]
    advice = "Give files with the same class names."
    if common:
        advice = f"Add --classes {shlex.join(common)}, and --keep-negatives to keep other images."
    raise InputError(
        f"{train_ann} and {val_ann} differ in their classes, for example "
        f"{sorted(set(ours) ^ set(theirs))[:4]}. {advice}"
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
    """Return image ids, and per class the numbers of images with boxes, boxes and crowds."""
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
