"""Suspicions by statistics: each fault is made in good data, and good data raise none."""

import re

import numpy as np
import pytest

from det_losses.data.box_table import BoxTable
from det_losses.data.coco import CocoDataset
from det_losses.data.split_checks import data_notes
from det_losses.data.suspicions import suspect_set, suspect_split

CLASSES = ("cat", "dog", "bird")


def table(images=60, seed=0, size=(160, 120), share=(0.5, 0.3, 0.2), scale=1.0):
    """Boxes at random places, of sides of 8 to 60 px, one to four in each image."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(images), rng.integers(1, 5, images))
    sides = np.exp(rng.uniform(np.log(8), np.log(60), (len(rows), 2))) * scale
    low = rng.uniform(0, 1, (len(rows), 2)) * (np.array(size) - sides)
    sizes = np.tile(np.array(size, float), (images, 1))
    labels = rng.choice(3, len(rows), p=share)
    files = [f"images/{number:03d}.jpg" for number in range(images)]
    return BoxTable(files, sizes, rows, np.hstack([low, low + sides]), labels, CLASSES)


def test_random_splits_raise_no_suspicion():
    """Twenty divisions of equal data, of 30 to 400 images: no false alarm."""
    for seed in range(20):
        one, other = table(30 + 20 * seed, seed), table(30, 1000 + seed)
        assert suspect_set(one) + suspect_split(one, other) == []


def test_the_subset_of_coco_raises_no_suspicion(coco_subset):
    files = [(str(coco_subset / f"instances_{split}.json"), split) for split in ("train", "val")]
    train, val = (
        CocoDataset(file, coco_subset / "images", test_mode=split == "val") for file, split in files
    )
    notes = data_notes(train, val)
    assert list(notes) == ["train", "val"]
    assert all("boxes are crowds" in note for own in notes.values() for note in own)


def with_boxes(good, rows, boxes):
    changed = good.boxes.copy()
    changed[rows] = boxes
    return good._replace(boxes=changed)


def faulty(kind):
    good = table()
    first = np.unique(good.images, return_index=True)[1]  # the first box of each image
    every = slice(None)
    return {
        "long": lambda: with_boxes(good, slice(0, 12), [5, 5, 150, 8]),
        "identical": lambda: with_boxes(good, first[:20], [10, 10, 50, 50]),
        "whole": lambda: with_boxes(good, every, [0, 0, 160, 120]),
        "corner": lambda: with_boxes(good, every, good.boxes / 2),
        "empty": lambda: good._replace(
            files=good.files + ["b.jpg"] * 20, sizes=np.tile([160.0, 120], (80, 1))
        ),
        "everywhere": lambda: good._replace(
            labels=np.where(np.isin(np.arange(len(good.labels)), first), 1, good.labels)
        ),
        "dominant": lambda: good._replace(labels=(np.arange(len(good.labels)) == 3).astype(int)),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("long", r"12 of \d+ boxes are more than 12 times as long as wide, such as \[5, 5, 145, 3"),
        ("identical", r"20 of 60 images have an identical box, such as \[10, 10, 40, 40\] \(000.j"),
        ("whole", r"(\d+) of \1 boxes cover their whole image \(000.jpg, 001.jpg, 002.jpg, ...\)"),
        ("corner", r"99% of \d+ boxes are in the upper left 49% x 50% of their image, such as"),
        ("empty", r"20 of 80 images have no box \(b.jpg, b.jpg, b.jpg, ...\)"),
        ("everywhere", r"all 60 images have the class dog: is it a background"),
        ("dominant", r"\d+ of \d+ boxes have the class cat: were the labels of the others lost"),
    ],
)
def test_a_fault_in_a_set_is_suspected(kind, start):
    found = suspect_set(faulty(kind))
    assert any(re.match(start, sentence) for sentence in found)
    assert len(found) == 1 or kind == "dominant"  # that class is also in nearly all images


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (dict(size=(320, 240), scale=2), "images have different sizes (median 160 x 120 and 320"),
        (dict(scale=0.4), "boxes have different sizes (median"),
        (dict(share=(0.05, 0.05, 0.9)), "2 classes are in different shares of the training"),
    ],
)
def test_a_split_into_different_data_is_suspected(other, expected):
    [sentence] = suspect_split(table(), table(seed=1, **other))
    assert expected in sentence


def test_classes_without_training_boxes_are_counted_by_name():
    val = table(seed=1)._replace(classes=("cat", "horse", "dog"))
    train = table()._replace(labels=np.zeros(len(table().labels), int))  # cats only
    count = int((val.labels > 0).sum())
    sentence = suspect_split(train, val)[0]
    assert sentence.startswith(f"{count} of {len(val.boxes)} validation boxes are of classes")
    assert "(horse, dog)" in sentence
