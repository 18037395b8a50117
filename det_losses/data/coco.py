"""A dataset in COCO format, or a subset of it by classes and number of images."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from det_losses.data.box_faults import (
    clipped_corners,
    describe_faults,
    find_faults,
    find_repeated,
    turned_images,
    without_area,
    wrong_format,
)
from det_losses.data.box_table import BoxTable
from det_losses.data.coco_json import CocoDict
from det_losses.data.folds import assign_folds
from det_losses.data.image_check import check_images
from det_losses.data.image_files import locate_images
from det_losses.data.images import ImageCache, exif_orientation
from det_losses.data.join import load_joined
from det_losses.data.subset import match_categories, select_categories, select_images
from det_losses.data.transforms import (
    Transform,
    apply_transforms,
    build_transforms,
    keeps_sizes,
    seeded,
)
from det_losses.errors import InputError, agreed, counted
from det_losses.registry import DATASETS


@DATASETS.register_module()
class CocoDataset(Dataset):
    """Images with boxes from a COCO instances json.

    A sample is ``(image, target)``: image uint8 [3, H, W]; target a dict of ``boxes`` float32
    [n, 4] (xyxy, pixels, inside the image), ``labels`` int64 [n] in 0..K-1 and ``image_id``. Crowd
    boxes and boxes without area inside the image are excluded. In test mode the target also has
    ``coco``, the data for an evaluation: the json's ``image`` entry (id, file_name, width, height)
    and its ``annotations`` of the chosen classes, including crowds, in original coordinates; those
    without area inside the image are excluded here too.

    All images are opened at construction, see :func:`~det_losses.data.image_check.check_images`.

    Args:
        ann_file: The annotation json, or a list of them, whose classes are joined by name, see
            :func:`~det_losses.data.join.load_joined`.
        image_dir: Folder to which the json's file names are relative; for a list of annotation
            files, one folder for all or one for each.
        transforms: Dicts of torchvision.transforms.v2 names, see
            :func:`~det_losses.data.transforms.build_transforms`. In test mode they must not change
            size or boxes, because the detector resizes images.
        classes: Names of the classes to use; label 0 is the first one. None: all classes of the
            json by ascending id. If given, only images with a box of these classes are used.
        labels: Names of the classes by label, as those of the training data. The json's classes are
            matched by name, whatever their ids are; those that it lacks have no boxes.
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
        cache_dir: Keep them in memory-mapped files in this folder instead, which all workers and
            all runs of a comparison share.
        skip_broken: Leave out images that cannot be read; ``broken`` has their names and errors.
        allow_outside: Read image files outside of ``image_dir``: by ``..``, by an absolute path or
            by a symbolic link.

    Attributes:
        notes: What reading the data dropped, converted or suspects, as sentences with counts.

    Raises:
        MissingFileError: The json, the image folder or an image is missing.
        InputError: The json is not valid, a class is unknown, there are too few images, they cannot
            be divided into folds, or an image is outside the folder or cannot be read.
    """

    def __init__(
        self,
        ann_file: str | Path | Sequence[str | Path],
        image_dir: str | Path | Sequence[str | Path],
        transforms: Sequence[Mapping[str, Any] | Transform] = (),
        classes: Sequence[str] | None = None,
        num_images: int | None = None,
        subset_seed: int = 0,
        keep_negatives: bool = False,
        folds: Mapping[str, Any] | None = None,
        test_mode: bool = False,
        cache_mb: float = 0,
        cache_dir: str | Path | None = None,
        labels: Sequence[str] | None = None,
        allow_outside: bool = False,
        skip_broken: bool = False,
    ) -> None:
        coco, self.ann_file, self.image_dir, self.notes = load_joined(ann_file, image_dir)
        if labels is None:
            categories = select_categories(coco, classes, self.ann_file)
        else:
            categories = match_categories(coco, labels, classes, self.ann_file)
        self.test_mode = test_mode
        self._category_ids = tuple(category_id for category_id, _ in categories)
        self._classes = tuple(name for _, name in categories)
        self.image_ids = select_images(
            coco,
            None if classes is None else self._category_ids,
            num_images,
            subset_seed,
            keep_negatives,
            source=self.ann_file,
        )
        negatives = len(coco["images"]) - len(self.image_ids) if num_images is None else 0
        if negatives:
            self.notes.append(
                f"{negatives} of {counted(len(coco['images']), 'image')} "
                f"{agreed(negatives, 'have no box of the chosen classes and are left out')}; "
                "keep_negatives=True keeps them"
            )
        fold_of = {} if folds is None else self._select_fold(coco, **folds)
        images = {image["id"]: image for image in coco["images"]}
        fields = ("id", "file_name", "width", "height")
        self._images = [{k: images[i][k] for k in fields} for i in self.image_ids]
        for image in self._images if fold_of else ():
            image["fold"] = fold_of[image["id"]]
        roots = [image_dir] if isinstance(image_dir, (str, Path)) else image_dir
        self._find_images(roots, allow_outside, skip_broken)
        self._read_annotations(coco["annotations"], bool(transforms))
        self._cache = ImageCache(cache_mb, cache_dir)
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
        return self.sample(index)

    def sample(self, index: int, copy: int = 0) -> tuple[Tensor, dict[str, Any]]:
        """Return the sample; each ``copy`` of it in the same epoch is augmented differently."""
        entry = self._images[index]
        path = os.path.join(self.image_dir, entry["file_name"])
        image = self._cache.read(path, (entry["width"], entry["height"]))
        rows = slice(self._offsets[index], self._offsets[index + 1])
        sample = image, self._boxes[rows].clone(), self._labels[rows].clone()
        if self._transforms:
            sample = self._transform(sample, entry, copy)
        target = {"boxes": sample[1], "labels": sample[2], "image_id": entry["id"]}
        if self.test_mode:
            target["coco"] = self.ground_truth(index)
        return sample[0], target

    def get_cat_ids(self, index: int) -> list[int]:
        """Return the labels of an image, each once; the name is mmengine's."""
        rows = slice(self._offsets[index], self._offsets[index + 1])
        return self._labels[rows].unique().tolist()

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
        self, sample: tuple[Tensor, Tensor, Tensor], entry: dict[str, Any], copy: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        epoch, seed = self._epoch.tolist()
        if epoch < 0:
            changed = apply_transforms(self._transforms, *sample)
        else:
            with seeded(seed, epoch, entry["id"], *([copy] if copy else [])):
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

    @property
    def num_boxes(self) -> int:
        """The number of boxes that are targets."""
        return len(self._labels)

    def box_table(self, transformed: bool = False) -> BoxTable:
        """Return the boxes that are targets.

        Args:
            transformed: whether to apply the transforms. If they change sizes, the table has only
                some of the images, because each is transformed; a blank one is enough for this.
        """
        table = BoxTable(
            self.image_files,
            np.array([(i["width"], i["height"]) for i in self._images], np.float64).reshape(-1, 2),
            np.repeat(np.arange(len(self._images)), np.diff(self._offsets)),
            self._boxes.numpy(),
            self._labels.numpy(),
            self._classes,
        )
        if not transformed or all(map(keeps_sizes, self._transforms)):
            return table
        rows = torch.randperm(len(self))[:_MOST_TRANSFORMED].sort().values.tolist()
        changed = []
        for row in rows:
            entry, own = self._images[row], slice(self._offsets[row], self._offsets[row + 1])
            blank = torch.zeros(3, entry["height"], entry["width"], dtype=torch.uint8)
            changed.append(
                apply_transforms(self._transforms, blank, self._boxes[own], self._labels[own])
            )
        return BoxTable(
            [table.files[row] for row in rows],
            np.array([image.shape[:0:-1] for image, _, _ in changed], np.float64).reshape(-1, 2),
            np.repeat(np.arange(len(rows)), [len(boxes) for _, boxes, _ in changed]),
            torch.cat([boxes for _, boxes, _ in changed]).numpy(),
            torch.cat([labels for _, _, labels in changed]).numpy(),
            self._classes,
        )

    @property
    def image_files(self) -> list[str]:
        """The paths of the image files, in the order of the samples."""
        return [os.path.join(self.image_dir, image["file_name"]) for image in self._images]

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

    def _find_images(
        self, roots: Sequence[str | Path], allow_outside: bool, skip_broken: bool
    ) -> None:
        """Replace file names by those on disk, and open all images."""
        names = [image["file_name"] for image in self._images]
        files, spelled = locate_images(
            self.image_dir, names, allow_outside, skip_missing=skip_broken, roots=roots
        )
        for image, file in zip(self._images, files, strict=True):
            image["file_name"] = file
        self.notes += spelled
        self.broken = check_images(self.image_dir, self._images, skip=skip_broken)
        if self.broken:
            self._images = [i for i in self._images if i["file_name"] not in self.broken]
            self.image_ids = [image["id"] for image in self._images]
            self.notes.append(
                f"{len(self.broken)} of {counted(len(files), 'image')} cannot be read and "
                f"{agreed(len(self.broken), 'are')} left out: "
                f"{', '.join(self.broken)}"
            )

    def _read_annotations(self, annotations: list[dict[str, Any]], transformed: bool) -> None:
        """Store targets as flat tensors, which worker processes share without copying."""
        label_of = {category_id: label for label, category_id in enumerate(self._category_ids)}
        row_of = {image_id: row for row, image_id in enumerate(self.image_ids)}
        own = [a for a in annotations if a["category_id"] in label_of and a["image_id"] in row_of]
        own.sort(key=lambda a: row_of[a["image_id"]])  # stable: the order of the json in an image
        rows = np.array([row_of[a["image_id"]] for a in own], dtype=np.int64)
        labels = np.array([label_of[a["category_id"]] for a in own], dtype=np.int64)
        boxes = np.array([a["bbox"] for a in own], dtype=np.float64).reshape(-1, 4)
        crowds = np.array([bool(a["iscrowd"]) for a in own], dtype=bool)
        sides = np.array([(i["width"], i["height"]) for i in self._images], dtype=np.float64)
        sizes = sides.reshape(-1, 2)[rows]
        corners = clipped_corners(boxes, sizes)
        void = without_area(corners)
        kept = ~void & ~crowds
        self._boxes = torch.from_numpy(corners[kept])
        self._labels = torch.from_numpy(labels[kept])
        self._offsets = np.searchsorted(rows[kept], np.arange(len(sides) + 1)).tolist()
        self._annotations: list[list[dict[str, Any]]] = []
        if self.test_mode:
            self._annotations = [[] for _ in self._images]
            for row, annotation, left_out in zip(rows.tolist(), own, void.tolist(), strict=True):
                if not left_out:
                    self._annotations[row].append(annotation)
        self._describe(rows, labels, boxes, sizes, crowds, transformed)

    def _describe(
        self,
        rows: np.ndarray,
        labels: np.ndarray,
        boxes: np.ndarray,
        sizes: np.ndarray,
        crowds: np.ndarray,
        transformed: bool,
    ) -> None:
        """Add sentences on the boxes to the notes: suspicions first, then what is left out."""
        files = [self._images[row]["file_name"] for row in rows.tolist()]
        faults = {name: found & ~crowds for name, found in find_faults(boxes, sizes).items()}
        if not transformed:
            del faults["thin"]
        left_out = crowds | faults["degenerate"] | faults["outside"]
        faults["repeated"] = find_repeated(rows, labels, boxes) & ~left_out
        faults["crowd"] = crowds
        real = ~crowds
        self.notes += wrong_format(boxes[real], sizes[real])
        self.notes += self._turned(turned_images(boxes[real], sizes[real], rows[real]))
        self.notes += describe_faults(faults, files, self.test_mode)
        counts = np.bincount(self._labels.numpy(), minlength=len(self._classes))
        absent = [name for name, count in zip(self._classes, counts, strict=True) if not count]
        if absent and len(absent) < len(self._classes):
            self.notes.append(_absent_classes(absent, self._classes, self.test_mode))

    def _turned(self, rows: np.ndarray) -> list[str]:
        """Return a sentence if boxes were drawn on a photo that its EXIF orientation turns."""
        found = []
        for row in rows[:_MOST_HEADERS].tolist():
            orientation = exif_orientation(self.image_files[row])
            if orientation > 4:  # those that swap width and height
                found.append((self._images[row], orientation))
        if not found:
            return []
        image, orientation = found[0]
        upright = f"{image['height']} x {image['width']} for {image['file_name']}"
        return [
            f"boxes of {counted(len(rows), 'image')} reach beyond the json's size and fit the "
            f"image turned by 90 degrees, and {image['file_name']} has the EXIF orientation "
            f"{orientation}: the boxes belong to the upright picture, but the json has the size "
            "of the stored one, which is therefore used. Set 'width' and 'height' of all images "
            f"with such an orientation to those of the upright picture ({upright})"
        ]


_MOST_HEADERS = 100  # of image files that are read to find EXIF orientations
_MOST_NAMES = 10
_MOST_TRANSFORMED = 200  # blank images that are transformed to find the sizes of boxes


def _absent_classes(absent: Sequence[str], classes: Sequence[str], evaluation: bool) -> str:
    names = ", ".join(absent[:_MOST_NAMES]) + (", ..." if len(absent) > _MOST_NAMES else "")
    if evaluation:
        return f"classes without boxes, whose AP is n/a ({len(absent)}): {names}"
    rest = [name for name in classes if name not in absent]
    option = f"--classes {shlex.join(rest)}" if len(rest) <= _MOST_NAMES else "--classes"
    return f"classes without boxes ({len(absent)}): {names}; {option} leaves them out"
