"""COCO data in the layout that ultralytics reads: links to the images, text files, data.yaml."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.io import write_png

from det_losses.data.coco import CocoDataset
from det_losses.data.images import exif_orientation, read_image
from det_losses.files import write_json, write_text


@dataclass(frozen=True)
class Split:
    """One of the two sets of images.

    Attributes:
        dataset: the COCO data, whose checks have been made.
        stems: name without extension of each image in the layout -> row of the image.
    """

    dataset: CocoDataset
    stems: dict[str, int]


@dataclass(frozen=True)
class Layout:
    """Data that ultralytics can read.

    Attributes:
        data: the path of data.yaml.
        splits: ``"train"`` and ``"val"``.
    """

    data: Path
    splits: dict[str, Split]

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The id in the validation json of each class of the model."""
        return self.splits["val"].dataset.metainfo["category_ids"]


def write_layout(
    folder: Path,
    train_ann: str | Path,
    train_images: str | Path,
    val_ann: str | Path,
    val_images: str | Path,
) -> Layout:
    """Write ultralytics' layout of two COCO files into a folder, whose old content is removed.

    Each image is a symbolic link with its id as name. An image whose EXIF orientation our training
    does not apply is written as PNG, because ultralytics applies all orientations. Boxes are those
    of our own training: crowds and boxes without area inside the image are left out, as by
    ultralytics' converter, and boxes that reach beyond the image are clipped. The classes are those
    of the training json by ascending id; those of the validation json are matched by name.

    Raises:
        MissingFileError: a json, a folder or an image is missing.
        InputError: a json is not valid, an image cannot be read, or the classes differ.
    """
    train = CocoDataset(train_ann, train_images)
    names = train.metainfo["classes"]
    val = CocoDataset(val_ann, val_images, labels=names, test_mode=True)
    if folder.exists():
        shutil.rmtree(folder)
    splits = {
        name: Split(dataset, _write_split(folder, name, dataset))
        for name, dataset in (("train", train), ("val", val))
    }
    data = folder / "data.yaml"
    content = {"path": str(folder), "train": "images/train", "val": "images/val"}
    write_json(data, {**content, "names": dict(enumerate(names))}, indent=2)  # JSON is YAML
    return Layout(data, splits)


def _write_split(folder: Path, name: str, dataset: CocoDataset) -> dict[str, int]:
    """Write the links and labels of a split; return the row of each by name."""
    images, labels = folder / "images" / name, folder / "labels" / name
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    table = dataset.box_table()
    edges = np.searchsorted(table.images, np.arange(len(table.files) + 1))
    stems = {}
    for row, file in enumerate(table.files):
        own = slice(edges[row], edges[row + 1])
        stem = f"{dataset.image_ids[row]:012d}"
        _place(file, images / stem, tuple(map(int, table.sizes[row])))
        text = _label_text(table.labels[own], table.boxes[own], table.sizes[row])
        write_text(labels / f"{stem}.txt", text)
        stems[stem] = row
    return stems


def _place(file: str, target: Path, size: tuple[int, int]) -> None:
    """Link an image; if it must be used as it is stored, write it without its orientation."""
    with Image.open(file) as image:
        turned = image.size == size and exif_orientation(file) != 1
    if turned:
        write_png(read_image(file, size), f"{target}.png")
    else:
        os.symlink(os.path.abspath(file), f"{target}{Path(file).suffix.lower()}")


def _label_text(labels: np.ndarray, boxes: np.ndarray, size: np.ndarray) -> str:
    """Return one line for each box: class, centre and size as fractions of the image."""
    corners = boxes.astype(np.float64) / np.tile(size, 2)
    centers = (corners[:, :2] + corners[:, 2:]) / 2
    rows = np.hstack([centers, corners[:, 2:] - corners[:, :2]]).tolist()
    lines = (
        " ".join([str(label), *(f"{value:.9g}" for value in row)])
        for label, row in zip(labels.tolist(), rows, strict=True)
    )
    return "".join(f"{line}\n" for line in lines)
