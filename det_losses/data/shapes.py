"""The built-in dataset: procedurally drawn shapes in COCO format, generated on first use."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log

from det_losses.data.coco import CocoDataset
from det_losses.data.shapes_drawing import LEVELS, box_and_area, draw
from det_losses.data.transforms import Transform
from det_losses.errors import InputError, counted
from det_losses.files import write_bytes, write_json
from det_losses.registry import DATASETS

_VERSION = 2  # increment when the images change
_META = "meta.json"
_SPLITS = ("train", "val")
_FIRST_VAL_ID = 1_000_000
_MIN_SIZE = 32


def make_shapes(
    root: str | Path,
    num_train: int = 1000,
    num_val: int = 250,
    image_size: int = 128,
    seed: int = 0,
    level: str = "full",
) -> Path:
    """Generate the dataset in ``root``, unless it exists.

    Writes train.json, val.json, images/ and meta.json. An image depends only on the seed, the split
    and its number, so a larger set starts with the images of a smaller one. The folder is created
    atomically, even if several processes create it at the same time.

    Args:
        root: Folder of the dataset.
        num_train: Number of training images.
        num_val: Number of validation images.
        image_size: Width and height, pixels; the shapes scale with it.
        seed: Random seed.
        level: "full" (six classes, up to six shapes, small and thin ones, clutter), or "easy"
            (three classes, one to three larger shapes).

    Returns:
        ``root``.

    Raises:
        InputError: A number is out of range, or ``root`` has a dataset with other settings, an
            incomplete dataset, or other files.
    """
    root = Path(root)
    meta = {
        "set": "det_losses shapes",
        "version": _VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "image_size": image_size,
        "seed": seed,
        "level": level,
    }
    for name, least in (("num_train", 1), ("num_val", 1), ("image_size", _MIN_SIZE), ("seed", 0)):
        if meta[name] < least or meta[name] > _FIRST_VAL_ID:
            raise InputError(f"{name} must be from {least} to {_FIRST_VAL_ID}, got {meta[name]}")
    if level not in LEVELS:
        raise InputError(f"level must be one of {list(LEVELS)}, got {level!r}")
    if not _is_complete(root, meta):
        _generate(root, meta)
    return root


def _is_complete(root: Path, meta: dict[str, Any]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    remedy = "Choose another data_root, or delete the folder to generate it again."
    try:
        # datasets of earlier versions have no level in this file
        found = {"level": "full", **json.loads((root / _META).read_text(encoding="utf-8"))}
    except (OSError, TypeError, ValueError):
        raise InputError(
            f"{root}: not a dataset of built-in shapes, or damaged. {remedy}"
        ) from None
    if found != meta:
        differing = [key for key in meta if found.get(key) != meta[key]]
        wanted = ", ".join(f"{key}={meta[key]}" for key in differing)
        there = ", ".join(f"{key}={found.get(key)}" for key in differing)
        raise InputError(
            f"{root}: generated with {there}, not {wanted}. The train and val dataset of a config "
            f"need the same values. {remedy}"
        )
    expected = {name for split in _SPLITS for name in _file_names(meta, split)}
    present = set(os.listdir(root / "images")) if (root / "images").is_dir() else set()
    missing = sorted(expected - present)
    missing += [f"{split}.json" for split in _SPLITS if not (root / f"{split}.json").is_file()]
    if missing:
        raise InputError(
            f"{root}: incomplete, {counted(len(missing), 'file')} missing, for example "
            f"{missing[0]}. "
            f"{remedy}"
        )
    return True


def _generate(root: Path, meta: dict[str, Any]) -> None:
    count = meta["num_train"] + meta["num_val"]
    print_log(
        f"Generating {counted(count, 'image')} of shapes in {root} (once, takes seconds)",
        logger="current",
    )
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".part", dir=root.parent))
    except OSError as error:
        raise InputError(
            f"data_root {root}: cannot be made in {root.parent.absolute()} ({error.strerror}); "
            "give another data_root to the train and val dataset, or run in another folder"
        ) from error
    try:
        os.chmod(part, 0o755)
        (part / "images").mkdir()
        for split in _SPLITS:
            write_json(part / f"{split}.json", _draw_split(part / "images", split, meta))
        write_json(part / _META, meta)
        try:
            os.rename(part, root)
        except OSError:
            # Another process was faster; check its dataset like any other.
            if not _is_complete(root, meta):
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _file_names(meta: dict[str, Any], split: str) -> list[str]:
    return [f"{split}_{index:06d}.png" for index in range(meta[f"num_{split}"])]


def _draw_split(folder: Path, split: str, meta: dict[str, Any]) -> dict[str, Any]:
    size, classes = meta["image_size"], LEVELS[meta["level"]].classes
    category_ids = {name: number for number, name in enumerate(classes, start=1)}
    first_id = _FIRST_VAL_ID if split == "val" else 0
    images, annotations = [], []
    for index, file_name in enumerate(_file_names(meta, split)):
        rng = np.random.default_rng([meta["seed"], _SPLITS.index(split), index])
        drawing = draw(rng, size, meta["level"])
        bgr = np.ascontiguousarray(drawing.image[..., ::-1])
        write_bytes(folder / file_name, cv2.imencode(".png", bgr)[1].tobytes())
        image_id = first_id + index + 1
        images.append(dict(id=image_id, file_name=file_name, width=size, height=size))
        for name, mask in zip(drawing.classes, drawing.masks, strict=True):
            box, area = box_and_area(mask)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=category_ids[name],
                    bbox=box,
                    area=area,
                    iscrowd=0,
                )
            )
    categories = [
        dict(id=number, name=name, supercategory="shape") for name, number in category_ids.items()
    ]
    return dict(images=images, annotations=annotations, categories=categories)


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """The built-in shapes as a dataset, drawn on first use.

    Args:
        data_root: Folder of the dataset, see :func:`make_shapes`.
        split: "train" or "val".
        num_train: Number of training images. This and the next four values must be equal for train
            and val of one folder, see :func:`make_shapes`.
        num_val: Number of validation images.
        image_size: Width and height, pixels.
        seed: Random seed of the images.
        level: "full" or "easy".
        transforms: This and the remaining arguments: see
            :class:`~det_losses.data.coco.CocoDataset`.
        classes: Names out of ellipse, rectangle, triangle, star, ring, cross.
        num_images: Number of images to use.
        subset_seed: Seed of the selection.
        keep_negatives: Keep images without the chosen classes.
        test_mode: Also return the data for an evaluation.
        cache_mb: Keep decoded images in memory, up to this many MiB.
        cache_dir: Keep them in files of this folder instead.

    Raises:
        InputError: ``split`` is unknown; see also :func:`make_shapes` and ``CocoDataset``.
    """

    def __init__(
        self,
        data_root: str | Path,
        split: str = "train",
        num_train: int = 1000,
        num_val: int = 250,
        image_size: int = 128,
        seed: int = 0,
        level: str = "full",
        transforms: Sequence[Mapping[str, Any] | Transform] = (),
        classes: Sequence[str] | None = None,
        num_images: int | None = None,
        subset_seed: int = 0,
        keep_negatives: bool = False,
        test_mode: bool = False,
        cache_mb: float = 0,
        cache_dir: str | Path | None = None,
    ) -> None:
        if split not in _SPLITS:
            raise InputError(f"split must be 'train' or 'val', got {split!r}")
        root = make_shapes(data_root, num_train, num_val, image_size, seed, level)
        super().__init__(
            ann_file=root / f"{split}.json",
            image_dir=root / "images",
            transforms=transforms,
            classes=classes,
            num_images=num_images,
            subset_seed=subset_seed,
            keep_negatives=keep_negatives,
            test_mode=test_mode,
            cache_mb=cache_mb,
            cache_dir=cache_dir,
        )
