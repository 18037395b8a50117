"""The boxes of a dataset as arrays, for statistics."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class BoxTable(NamedTuple):
    """The boxes of M images.

    Attributes:
        files: M paths of images.
        sizes: ``[M, 2]`` width and height, pixels.
        images: ``[N]`` row of each box's image, ascending.
        boxes: ``[N, 4]`` float32, xyxy, pixels, inside the image.
        labels: ``[N]`` int64, indices of ``classes``.
        classes: names.
    """

    files: list[str]
    sizes: np.ndarray
    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def sides(self) -> np.ndarray:
        """``[N, 2]`` width and height of the boxes."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    @property
    def counts(self) -> np.ndarray:
        """``[M]`` number of boxes of each image."""
        return np.bincount(self.images, minlength=len(self.files))

    def has_class(self) -> np.ndarray:
        """Return ``[M, K]``: whether an image has a box of a class."""
        found = np.zeros((len(self.files), len(self.classes)), dtype=bool)
        found[self.images, self.labels] = True
        return found

    def of_images(self, rows: np.ndarray) -> "BoxTable":
        """Return the table of some of the images, given by their rows, ascending."""
        kept = np.isin(self.images, rows)
        return BoxTable(
            [self.files[row] for row in rows],
            self.sizes[rows],
            np.searchsorted(rows, self.images[kept]),
            self.boxes[kept],
            self.labels[kept],
            self.classes,
        )


def parts_of(dataset: Any) -> Iterator[Any]:
    """Yield the datasets inside a wrapper such as ConcatDataset, or the dataset itself."""
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    if inner[0] is None:
        yield dataset
        return
    for part in inner:
        yield from parts_of(part)


def table_of(dataset: Any, *, transformed: bool = False) -> BoxTable | None:
    """Return the boxes of a dataset, each image once; None if a part of it has no such table.

    The classes of several parts are joined by name.

    Args:
        dataset: a dataset or a wrapper of several.
        transformed: whether to apply the transforms. If they change more than colours or flip the
            image, only the boxes of some images are returned.
    """
    methods = [getattr(part, "box_table", None) for part in parts_of(dataset)]
    if None in methods:
        return None
    tables = [method(transformed) for method in methods]
    return tables[0] if len(tables) == 1 else joined(tables)


def joined(tables: Sequence[BoxTable]) -> BoxTable:
    """Join tables; classes are those of the same name."""
    classes = tuple(dict.fromkeys(name for table in tables for name in table.classes))
    starts = np.cumsum([0, *(len(table.files) for table in tables)])
    new = [np.array([classes.index(name) for name in table.classes]) for table in tables]
    return BoxTable(
        [file for table in tables for file in table.files],
        np.concatenate([table.sizes for table in tables]),
        np.concatenate([t.images + start for t, start in zip(tables, starts, strict=False)]),
        np.concatenate([table.boxes for table in tables]),
        np.concatenate([label[t.labels] for t, label in zip(tables, new, strict=True)]),
        classes,
    )
