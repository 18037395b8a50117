"""Checks of training and validation data together, and what to tell about them."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from det_losses.data.box_table import parts_of, table_of
from det_losses.data.suspicions import suspect_set, suspect_split
from det_losses.errors import InputError, agreed, counted, examples
from det_losses.files import file_hash


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
        f"{source}: no box to {purpose} on {counted(len(dataset), 'image')}{reason}. "
        "Give a file with boxes."
    )


def data_notes(train: Any, val: Any) -> dict[str, list[str]]:
    """Return what was dropped, converted or looks wrong in the data, as sentences.

    Args:
        train: the training dataset, or None.
        val: the validation dataset, or None.

    Returns:
        ``train``, ``val`` and ``both`` -> sentences; empty ones are left out.
    """
    tables = {"train": table_of(train), "val": table_of(val)}
    found = {
        name: [
            f"{_source(part)}: {note}"
            for part in dict.fromkeys([dataset, *parts_of(dataset)])
            for note in getattr(part, "notes", [])
        ]
        + [f"{_source(dataset)}: {note}" for note in suspect_set(tables[name])]
        for name, dataset in (("train", train), ("val", val))
        if dataset is not None
    }
    if train is not None and val is not None:
        found["both"] = [
            *_shared_images(train, val),
            *suspect_split(tables["train"], tables["val"]),
        ]
    return {name: list(dict.fromkeys(notes)) for name, notes in found.items() if notes}


def _source(dataset: Any) -> str:
    """Return the names of a dataset's annotation files, or that of its class."""
    files = str(getattr(dataset, "ann_file", type(dataset).__name__)).split(" + ")
    return " + ".join(map(os.path.basename, files))


def _shared_images(train: Any, val: Any) -> list[str]:
    """Return a sentence if images of the evaluation are also trained on.

    Images are the same if they are one file, or files of the same content, whatever their names.
    """
    trained, evaluated = _files(train), _files(val)
    sizes = {file: _size(file) for file in (*trained, *evaluated)}
    known = {sizes[file] for file in trained} & {sizes[file] for file in evaluated} - {None}
    first: dict[str | None, str] = {}
    for file in trained:
        if sizes[file] in known:
            first.setdefault(_digest(file), file)
    first.pop(None, None)
    shared = [
        (file, first[digest])
        for file in evaluated
        if sizes[file] in known and (digest := _digest(file)) in first
    ]
    if not shared:
        return []
    names = examples([_pair(each) for each in shared])
    return [
        f"{len(shared)} of {counted(len(evaluated), 'validation image')} "
        f"{'is also a training image' if len(shared) == 1 else 'are also training images'} "
        f"({names}): the metrics do not show how well other images are detected. Keep each "
        "image in one of the two."
    ]


def _pair(files: tuple[str, str]) -> str:
    """Return the name of a validation image, and that of the training image if it is another."""
    one, other = map(os.path.basename, files)
    return one if one == other else f"{one} is {other}"


def _files(dataset: Any) -> Sequence[str]:
    return [file for part in parts_of(dataset) for file in getattr(part, "image_files", [])]


def _size(file: str) -> int | None:
    try:
        return os.stat(file).st_size
    except OSError:  # reading the image reports what is wrong with it
        return None


def _digest(file: str) -> str | None:
    try:
        return file_hash(file)
    except OSError:
        return None


MORE_DETECTIONS = (
    "val_evaluator.max_dets={} evaluates more, if the detector returns as many (detections_per_img)"
)


def beyond_max_dets(val: Any, max_dets: int) -> list[str]:
    """Return a sentence if ``max_dets`` leaves out objects of the validation data.

    Args:
        val: the validation dataset, or None.
        max_dets: number of detections per image and class that are evaluated.
    """
    table = table_of(val) if val is not None else None
    if table is None:
        return []
    found = capped(table.images, table.labels, len(table.files), max_dets, MORE_DETECTIONS)
    return [f"{_source(val)}: {found}"] if found else []


def capped(
    images: np.ndarray, labels: np.ndarray, total: int, max_dets: int, remedy: str
) -> str | None:
    """Return a sentence if images have more objects of a class than detections are evaluated.

    Args:
        images: ``[N]`` the image of each object.
        labels: ``[N]`` its class.
        total: number of images.
        max_dets: number of detections per image and class that are evaluated.
        remedy: what evaluates more; ``{}`` in it becomes the number that is needed.
    """
    cells, counts = np.unique(np.stack([images, labels]), axis=1, return_counts=True)
    over = counts > max_dets
    if not over.any():
        return None
    number, most = len(set(cells[0, over].tolist())), counts.max()
    return (
        f"{number} of {counted(total, 'evaluated image')} {agreed(number, 'have')} more than "
        f"{max_dets} objects of a class, up to {most}, and only {max_dets} detections of an image "
        f"and class are evaluated: no AP can reach 100. {remedy.format(most)}"
    )
