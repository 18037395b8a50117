"""Datasets made of others: joined, repeated, or with the images of rare classes repeated.

They have the names and arguments of mmengine's wrappers, which require mmengine's own datasets and
do not pass on the epoch.
"""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from det_losses.data.join import common_folder, join_classes, offsets
from det_losses.errors import InputError, InputTypeError, located
from det_losses.registry import DATASETS

Source = Dataset | Mapping[str, Any]  # a dataset or its config


class _Selection(Dataset):
    """Samples of other datasets, whose classes are joined by name.

    Attributes:
        notes: Sentences on classes that some of the datasets lack.

    Args:
        datasets: The datasets.
        samples: (dataset, index in it, number of the copy) of each sample; every sample of the
            datasets occurs.

    Raises:
        InputError: A dataset does not have its classes in ``metainfo``, or an evaluation would
            count images more than once.
    """

    def __init__(
        self, datasets: Sequence[Dataset], samples: Sequence[tuple[int, int, int]]
    ) -> None:
        self.datasets = list(datasets)
        self._samples = torch.tensor(samples, dtype=torch.int64).reshape(-1, 3)
        self._copies = int(self._samples[:, 2].max()) + 1 if samples else 1
        self.test_mode = any(getattr(each, "test_mode", False) for each in datasets)
        if self.test_mode and self._copies > 1:
            with located("type"):
                raise InputError(
                    f"{type(self).__name__} repeats images, which an evaluation must not count "
                    "more than once. Use it for training data only."
                )
        self._join_classes()
        ids = [_image_ids(each) for each in datasets]
        known = all(each is not None for each in ids)
        self._shifts = offsets(ids) if known else [0] * len(ids)
        if known:
            self.image_ids = [ids[part][i] + self._shifts[part] for part, i, _ in samples]
        dirs = [getattr(each, "image_dir", None) for each in datasets]
        self._prefixes = [""] * len(dirs)
        if None not in dirs:
            self.image_dir, self._prefixes = common_folder(dirs)

    @property
    def metainfo(self) -> dict[str, tuple]:
        """``classes`` (names by label) and ``category_ids`` (ids by label)."""
        return {"classes": self._classes, "category_ids": self._category_ids}

    @property
    def num_images(self) -> int:
        """The number of different images, at most the number of samples."""
        return sum(getattr(each, "num_images", len(each)) for each in self.datasets)

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Pass the epoch to all datasets that take it, see ``CocoDataset.set_epoch``."""
        for each in self.datasets:
            if hasattr(each, "set_epoch"):
                each.set_epoch(epoch, seed)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        return self.sample(index)

    def sample(self, index: int, copy: int = 0) -> tuple[Tensor, dict[str, Any]]:
        """Return the sample; each ``copy`` of it in the same epoch is augmented differently."""
        part, inner, own = self._samples[index].tolist()
        dataset, copy = self.datasets[part], copy * self._copies + own
        copies = hasattr(dataset, "sample")
        image, target = dataset.sample(inner, copy) if copies else dataset[inner]
        labels = self._labels[part][target["labels"]]
        target = {**target, "labels": labels, "image_id": target["image_id"] + self._shifts[part]}
        if "coco" in target:
            target["coco"] = self._moved(target["coco"], part)
        return image, target

    def get_cat_ids(self, index: int) -> list[int]:
        """Return the labels of an image, each once."""
        part, inner, _ = self._samples[index].tolist()
        labels = list(self.datasets[part].get_cat_ids(inner))
        return self._labels[part][labels].unique().tolist() if labels else []

    def ground_truth(self, index: int) -> dict[str, Any]:
        """Return the ground truth of an image for an evaluation, see ``CocoDataset``."""
        part, inner, _ = self._samples[index].tolist()
        dataset = self.datasets[part]
        if hasattr(dataset, "ground_truth"):
            return self._moved(dataset.ground_truth(inner), part)
        return self._moved(dataset[inner][1]["coco"], part)

    def _join_classes(self) -> None:
        metainfo = [getattr(each, "metainfo", None) or {} for each in self.datasets]
        names = [type(each).__name__ for each in self.datasets]
        for name, each in zip(names, metainfo, strict=True):
            if not {"classes", "category_ids"} <= each.keys():
                raise InputError(
                    f"{type(self).__name__}: the metainfo of {name} has no 'classes' and "
                    "'category_ids'"
                )
        pairs = [list(zip(m["category_ids"], m["classes"], strict=True)) for m in metainfo]
        files = [getattr(each, "ann_file", None) for each in self.datasets]
        ids, self.notes = join_classes(
            pairs, [file or n for file, n in zip(files, names, strict=True)]
        )
        self._classes, self._category_ids = tuple(ids), tuple(ids.values())
        label_of = {name: label for label, name in enumerate(ids)}
        self._labels = [torch.tensor([label_of[name] for _, name in part]) for part in pairs]
        self._new_ids = [{old: ids[name] for old, name in part} for part in pairs]

    def _moved(self, truth: Mapping[str, Any], part: int) -> dict[str, Any]:
        shift, new_ids = self._shifts[part], self._new_ids[part]
        image = {**truth["image"], "id": truth["image"]["id"] + shift}
        if "file_name" in image:
            image["file_name"] = os.path.join(self._prefixes[part], image["file_name"])
        annotations = [
            {
                **box,
                "image_id": box["image_id"] + shift,
                "category_id": new_ids[box["category_id"]],
            }
            for box in truth["annotations"]
        ]
        return {"image": image, "annotations": annotations}


@DATASETS.register_module()
class ConcatDataset(_Selection):
    """Several datasets, one after the other.

    Label k is the k-th name in the order of first appearance. Image ids that occur in two datasets
    are shifted.

    Args:
        datasets: Datasets or their configs.

    Raises:
        InputError: The list is empty, or a dataset does not have its classes in ``metainfo``.
    """

    def __init__(self, datasets: Sequence[Source]) -> None:
        if not isinstance(datasets, Sequence) or not datasets:
            with located("datasets"):
                raise InputError(f"ConcatDataset needs a list of datasets, got {datasets!r}")
        built = [_built(each) for each in datasets]
        samples = [(part, i, 0) for part, each in enumerate(built) for i in range(len(each))]
        super().__init__(built, samples)


@DATASETS.register_module()
class RepeatDataset(_Selection):
    """A dataset repeated within each epoch; each copy of an image is augmented differently.

    Args:
        dataset: The dataset or its config.
        times: Number of repetitions.

    Raises:
        InputError: ``times`` is not a whole number of at least 1.
    """

    def __init__(self, dataset: Source, times: int) -> None:
        if type(times) is not int or times < 1:
            with located("times"):
                raise InputError(f"must be at least 1, got {times!r}")
        built = _built(dataset)
        super().__init__([built], [(0, i, k) for k in range(times) for i in range(len(built))])


@DATASETS.register_module()
class ClassBalancedDataset(_Selection):
    """A dataset whose images of rare classes are repeated within each epoch.

    With the fraction f of images that have a class, an image is repeated
    ``ceil(max(1, sqrt(oversample_thr / f)))`` times for the rarest of its classes.

    Args:
        dataset: The dataset or its config.
        oversample_thr: Fraction of the images below which a class is repeated.

    Raises:
        InputError: ``oversample_thr`` is not above 0.

    Reference:
        Gupta, Dollár, Girshick, "LVIS: A Dataset for Large Vocabulary Instance Segmentation",
        arXiv:1908.03195, 2019.
    """

    def __init__(self, dataset: Source, oversample_thr: float) -> None:
        if not isinstance(oversample_thr, (int, float)) or not 0 < oversample_thr < math.inf:
            with located("oversample_thr"):
                raise InputError(f"must be above 0, got {oversample_thr!r}")
        built = _built(dataset)
        if not hasattr(built, "get_cat_ids"):
            raise InputTypeError(
                f"ClassBalancedDataset: {type(built).__name__} has no method get_cat_ids(index) "
                "that returns the labels of an image"
            )
        labels = [set(built.get_cat_ids(index)) for index in range(len(built))]
        images_with = Counter(label for each in labels for label in each)
        thr = oversample_thr * len(built)
        times = [
            math.ceil(max([1.0, *(math.sqrt(thr / images_with[label]) for label in each)]))
            for each in labels
        ]
        super().__init__([built], [(0, i, k) for i, n in enumerate(times) for k in range(n)])


def _image_ids(dataset: Dataset) -> list[int] | None:
    """Return the image id of each sample; None if they are unknown and not needed."""
    ids = getattr(dataset, "image_ids", None)
    if ids is None and getattr(dataset, "test_mode", False):
        return [dataset[index][1]["image_id"] for index in range(len(dataset))]
    return ids


def _built(source: Source) -> Dataset:
    return DATASETS.build(source) if isinstance(source, Mapping) else source
