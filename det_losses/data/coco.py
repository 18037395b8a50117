"""A dataset in COCO format, or a subset of it by classes and number of images; its batches."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import Dataset

from det_losses.data.coco_json import CocoDict, load_coco_json
from det_losses.data.folds import assign_folds
from det_losses.data.images import ImageCache
from det_losses.data.subset import select_categories, select_images
from det_losses.data.transforms import Transform, apply_transforms, build_transforms, seeded
from det_losses.errors import InputError, MissingFileError
from det_losses.registry import DATASETS, FUNCTIONS


@DATASETS.register_module()
class CocoDataset(Dataset):
    """Images with boxes from a COCO instances json.

    A sample is ``(image, target)``: image uint8 [3, H, W]; target a dict of ``boxes`` float32
    [n, 4] (xyxy, pixels, inside the image), ``labels`` int64 [n] in 0..K-1 and ``image_id``. Crowd
    boxes and boxes without area inside the image are excluded. In test mode the target also has
    ``coco``, the data for an evaluation: the json's ``image`` entry (id, file_name, width, height)
    and its ``annotations`` of the chosen classes, including crowds, in original coordinates.

    Args:
        ann_file: The annotation json.
        image_dir: Folder to which the json's file names are relative.
        transforms: Dicts of torchvision.transforms.v2 names, see
            :func:`~det_losses.data.transforms.build_transforms`. In test mode they must not change
            size or boxes, because the detector resizes images.
        classes: Names of the classes to use; label 0 is the first one. None: all classes of the
            json by ascending id. If given, only images with a box of these classes are used.
        num_images: Number of images to use, selected with ``subset_seed``; None: all.
        subset_seed: Seed of the selection, see :func:`~det_losses.data.subset.select_images`.
        keep_negatives: Keep the images without the chosen classes, so that detections on them
            count as false positives.
        folds: ``count`` and optionally ``key`` divide these images into folds
            (:func:`~det_losses.data.folds.assign_folds`). With ``index``, those of this fold are
            used in test mode, and all others otherwise. ``image`` has the ``fold`` of each image.
        test_mode: Also return the data for an evaluation.
        cache_mb: Keep decoded images in memory, up to this many MiB; 0 keeps none. Each worker
            process has a cache of its own.

    Raises:
        MissingFileError: The json, the image folder or an image is missing.
        InputError: The json is not valid, a class is unknown, there are too few images, or they
            cannot be divided into folds.
    """

    def __init__(
        self,
        ann_file: str | Path,
        image_dir: str | Path,
        transforms: Sequence[Mapping[str, Any] | Transform] = (),
        classes: Sequence[str] | None = None,
        num_images: int | None = None,
        subset_seed: int = 0,
        keep_negatives: bool = False,
        folds: Mapping[str, Any] | None = None,
        test_mode: bool = False,
        cache_mb: float = 0,
    ) -> None:
        coco = load_coco_json(ann_file)
        categories = select_categories(coco, classes, str(ann_file))
        self.ann_file, self.image_dir, self.test_mode = str(ann_file), str(image_dir), test_mode
        self._category_ids = tuple(category_id for category_id, _ in categories)
        self._classes = tuple(name for _, name in categories)
        self.image_ids = select_images(
            coco,
            None if classes is None else self._category_ids,
            num_images,
            subset_seed,
            keep_negatives,
            source=str(ann_file),
        )
        fold_of = {} if folds is None else self._select_fold(coco, **folds)
        images = {image["id"]: image for image in coco["images"]}
        fields = ("id", "file_name", "width", "height")
        self._images = [{k: images[i][k] for k in fields} for i in self.image_ids]
        for image in self._images if fold_of else ():
            image["fold"] = fold_of[image["id"]]
        check_image_files(self.image_dir, [image["file_name"] for image in self._images])
        self._read_annotations(coco["annotations"])
        self._cache = ImageCache(cache_mb)
        self._transforms = build_transforms(transforms)
        self._epoch = torch.tensor([-1, 0])  # (epoch, seed); -1: never set

    @property
    def metainfo(self) -> dict[str, tuple]:
        """``classes`` (names by label) and ``category_ids`` (the json's ids by label)."""
        return {"classes": self._classes, "category_ids": self._category_ids}

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Make each sample's augmentation a function of (seed, epoch, image id) only.

        Call this in the main process before each epoch, including the first. Augmentation then
        depends neither on the number of workers nor on other users of random numbers (such as a
        loss), and a resumed run is identical to an uninterrupted one. Without this call,
        augmentation uses torch's global generator.
        """
        # in shared memory, so that persistent workers see the new epoch
        self._epoch.share_memory_().copy_(torch.tensor([epoch, seed]))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        entry = self._images[index]
        path = os.path.join(self.image_dir, entry["file_name"])
        image = self._cache.read(path, (entry["width"], entry["height"]))
        rows = slice(self._offsets[index], self._offsets[index + 1])
        sample = image, self._boxes[rows].clone(), self._labels[rows].clone()
        if self._transforms:
            sample = self._transform(sample, entry)
        target = {"boxes": sample[1], "labels": sample[2], "image_id": entry["id"]}
        if self.test_mode:
            target["coco"] = self.ground_truth(index)
        return sample[0], target

    def ground_truth(self, index: int) -> dict[str, Any]:
        """Return the ground truth of an image for an evaluation: the entries of the json.

        Raises:
            InputError: not in test mode.
        """
        if not self.test_mode:
            raise InputError("the ground truth of an evaluation requires test_mode=True")
        annotations = [dict(annotation) for annotation in self._annotations[index]]
        return {"image": dict(self._images[index]), "annotations": annotations}

    def _transform(
        self, sample: tuple[Tensor, Tensor, Tensor], entry: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        epoch, seed = self._epoch.tolist()
        if epoch < 0:
            changed = apply_transforms(self._transforms, *sample)
        else:
            with seeded(seed, epoch, entry["id"]):
                changed = apply_transforms(self._transforms, *sample)
        if not self.test_mode:
            return changed
        unmoved = apply_transforms([], *sample)[1]
        if changed[0].shape != sample[0].shape or not torch.equal(changed[1], unmoved):
            raise InputError(
                f"{entry['file_name']}: the transforms of a test dataset changed the image from "
                f"{list(sample[0].shape[1:])} to {list(changed[0].shape[1:])} (height, width) or "
                "moved its boxes, but detections are compared with the original boxes. Remove "
                "Resize, crops and flips; the detector resizes images."
            )
        return changed[0], *sample[1:]

    def _select_fold(
        self, coco: CocoDict, count: int, key: str | None = None, index: int | None = None
    ) -> dict[int, int]:
        """Keep the images of a fold, or those of the others; return the fold of each image."""
        fold_of = assign_folds(
            coco, self.image_ids, self._category_ids, count, key, source=self.ann_file
        )
        if index is not None:
            if not (isinstance(index, int) and 0 <= index < count):
                raise InputError(f"folds: index must be from 0 to {count - 1}, got {index!r}")
            chosen = [i for i in self.image_ids if (fold_of[i] == index) == self.test_mode]
            self.image_ids = chosen
        return fold_of

    def _read_annotations(self, annotations: list[dict[str, Any]]) -> None:
        """Store targets as flat tensors, which worker processes share without copying."""
        label_of = {category_id: label for label, category_id in enumerate(self._category_ids)}
        per_image: dict[int, list[dict[str, Any]]] = {i: [] for i in self.image_ids}
        for annotation in annotations:
            if annotation["category_id"] in label_of and annotation["image_id"] in per_image:
                per_image[annotation["image_id"]].append(annotation)
        boxes, labels, self._offsets, dropped = [], [], [0], 0
        for image in self._images:
            for annotation in per_image[image["id"]]:
                if annotation["iscrowd"]:
                    continue
                box = _clipped_xyxy(annotation["bbox"], image["width"], image["height"])
                if box[2] <= box[0] or box[3] <= box[1]:
                    dropped += 1
                    continue
                boxes.append(box)
                labels.append(label_of[annotation["category_id"]])
            self._offsets.append(len(boxes))
        self._boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        self._labels = torch.tensor(labels, dtype=torch.int64)
        self._annotations = list(per_image.values()) if self.test_mode else []
        if dropped:
            print_log(
                f"{self.ann_file}: {dropped} boxes without area inside their image are ignored",
                logger="current",
                level=logging.WARNING,
            )


@FUNCTIONS.register_module()
def detection_collate(samples: Sequence[tuple[Tensor, dict[str, Any]]]) -> dict[str, list]:
    """Collate samples ``(image, target)`` to a batch ``dict(images=[...], targets=[...])``.

    Images differ in size, so they are not stacked.
    """
    return {
        "images": [image for image, _ in samples],
        "targets": [target for _, target in samples],
    }


def check_image_files(image_dir: str, file_names: Sequence[str]) -> None:
    """Raise MissingFileError with count and first name if files are missing in ``image_dir``."""
    if not os.path.isdir(image_dir):
        raise MissingFileError(
            f"{image_dir}: no such image folder (relative paths start at {os.getcwd()})"
        )
    listed: dict[str, set[str]] = {}
    missing = []
    for name in file_names:
        folder, base = os.path.split(name)
        if folder not in listed:
            path = os.path.join(image_dir, folder)
            listed[folder] = set(os.listdir(path)) if os.path.isdir(path) else set()
        if base not in listed[folder]:
            missing.append(name)
    if missing:
        raise MissingFileError(
            f"{image_dir}: {len(missing)} of {len(file_names)} images are missing, the first is "
            f"{missing[0]}. Are the file names in the annotation file relative to this folder?"
        )


def _clipped_xyxy(box: Sequence[float], width: int, height: int) -> list[float]:
    x, y, w, h = box
    return [
        min(max(x, 0), width),
        min(max(y, 0), height),
        min(max(x + w, 0), width),
        min(max(y + h, 0), height),
    ]
