"""Checks of training and validation data together, and what to tell about them."""

import filecmp
import os
from collections.abc import Iterator
from typing import Any

from det_losses.errors import InputError

_EXAMPLES = 3
_COMPARED = 2048  # bytes at the end of files of equal size


def parts_of(dataset: Any) -> Iterator[Any]:
    """Yield the datasets inside a wrapper such as ConcatDataset, or the dataset itself."""
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    if inner[0] is None:
        yield dataset
        return
    for part in inner:
        yield from parts_of(part)


def check_boxes(dataset: Any, evaluation: bool) -> None:
    """Check that there is a box to train on, or to evaluate with.

    Datasets that do not count their boxes are not checked.

    Raises:
        InputError: there is no such box.
    """
    parts = list(parts_of(dataset))
    counts = [getattr(part, "num_boxes", None) for part in parts]
    if None in counts or sum(counts):
        return
    source = ", ".join(str(getattr(part, "ann_file", type(part).__name__)) for part in parts)
    purpose = "evaluate with" if evaluation else "train with"
    notes = [note for part in parts for note in getattr(part, "notes", [])]
    reason = f": {'; '.join(notes)}" if notes else ": there are no annotations of its images"
    raise InputError(
        f"{source}: no box to {purpose} on {len(dataset)} images{reason}. Give a file with boxes."
    )


def data_notes(train: Any, val: Any) -> dict[str, list[str]]:
    """Return what was dropped, converted or looks wrong in the data, as sentences.

    Args:
        train: the training dataset, or None.
        val: the validation dataset, or None.

    Returns:
        ``train``, ``val`` and ``both`` -> sentences; empty ones are left out.
    """
    found = {
        name: [
            f"{_source(part)}: {note}"
            for part in dict.fromkeys([dataset, *parts_of(dataset)])
            for note in getattr(part, "notes", [])
        ]
        for name, dataset in (("train", train), ("val", val))
        if dataset is not None
    }
    if train is not None and val is not None:
        found["both"] = _shared_images(train, val)
    return {name: list(dict.fromkeys(notes)) for name, notes in found.items() if notes}


def _source(dataset: Any) -> str:
    """Return the names of a dataset's annotation files, or that of its class."""
    files = str(getattr(dataset, "ann_file", type(dataset).__name__)).split(" + ")
    return " + ".join(map(os.path.basename, files))


def _shared_images(train: Any, val: Any) -> list[str]:
    """Return a sentence if images of the evaluation are also trained on.

    Images are the same if they are one file, or files of the same content.
    """
    evaluated, trained = _files(val), _files(train)
    sizes = {file: _size(file) for file in {*evaluated, *trained}}
    in_both = {sizes[file] for file in evaluated} & {sizes[file] for file in trained} - {None}
    same: dict[bytes, list[str]] = {}
    for file in dict.fromkeys(trained):
        if sizes[file] in in_both:
            same.setdefault(_end(file), []).append(file)
    shared = [
        file
        for file in evaluated
        if sizes[file] in in_both
        and any(_is_same(file, other) for other in same.get(_end(file), ()))
    ]
    if not shared:
        return []
    names = ", ".join(os.path.basename(file) for file in shared[:_EXAMPLES])
    more = ", ..." if len(shared) > _EXAMPLES else ""
    return [
        f"{len(shared)} of {len(evaluated)} validation images are also training images "
        f"({names}{more}): the metrics do not show how well other images are detected."
    ]


def _files(dataset: Any) -> list[str]:
    return [file for part in parts_of(dataset) for file in getattr(part, "image_files", [])]


def _size(file: str) -> int | None:
    try:
        return os.path.getsize(file)
    except OSError:
        return None


def _end(file: str) -> bytes:
    """Return the end of a file, which differs even if two images have the same header."""
    try:
        with open(file, "rb") as content:
            content.seek(max(0, os.path.getsize(file) - _COMPARED))
            return content.read()
    except OSError:
        return b""


def _is_same(file: str, other: str) -> bool:
    try:
        return os.path.samefile(file, other) or filecmp.cmp(file, other, shallow=False)
    except OSError:  # reading the image reports what is wrong with it
        return False
