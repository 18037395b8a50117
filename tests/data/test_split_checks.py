"""Checks of training and validation data together."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.data import ConcatDataset

from det_losses.data.box_table import BoxTable
from det_losses.data.coco import CocoDataset
from det_losses.data.split_checks import beyond_max_dets, check_boxes, data_notes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: [], "there are no annotations of its images"),
        (lambda a: [dict(each, bbox=[3, 3, 0, 9]) for each in a], "7 of 9 boxes have no width or"),
        (lambda a: [dict(each, iscrowd=1) for each in a], "9 of 9 boxes are crowds"),
        (
            lambda a: [dict(each, bbox=[200, 3, 9, 9]) for each in a],
            "WRONG BOXES.*; 7 of 9 boxes are outside",
        ),
    ],
)
def test_data_without_a_box_is_refused(tiny_coco, change, reason):
    def apply(coco):
        coco["annotations"] = change(coco["annotations"])

    paths, good = tiny_coco(change=apply), tiny_coco("good")
    for evaluation, purpose in ((False, "train with"), (True, "evaluate with")):
        dataset = CocoDataset(*paths, test_mode=evaluation)
        with pytest.raises(ValueError, match=f"no box to {purpose} on 6 images: {reason}"):
            check_boxes(dataset, evaluation)
        check_boxes(ConcatDataset([dataset, CocoDataset(*good)]), evaluation)
    check_boxes(object(), evaluation=True)  # another kind of dataset


def test_notes_name_their_file_once(tiny_coco):
    train, val = CocoDataset(*tiny_coco()), CocoDataset(*tiny_coco("v"), test_mode=True)
    both = ConcatDataset([train, CocoDataset(*tiny_coco("other"))])
    notes = data_notes(both, val)
    crowds = "2 of 9 boxes are crowds"
    assert notes["train"] == [f"instances.json: {crowds} and are left out (000020.png, 000033.png)"]
    assert notes["val"][0].startswith(f"instances.json: {crowds}: detections on them are ignored")


def test_images_in_both_are_counted(tiny_coco):
    """Images are the same if they are one file, or files of the same content."""
    a, b = tiny_coco("a"), tiny_coco("b")
    train = CocoDataset(*a)
    same = CocoDataset(*a, classes=["dog"], test_mode=True)
    text = "2 of 2 validation images are also training images (000005.png, 000011.png)"
    assert data_notes(train, same)["both"][0].startswith(text)
    copies = CocoDataset(*b, test_mode=True)
    expected = "6 of 6 validation images are also training images (000005.png, 000008.png, "
    assert data_notes(train, copies)["both"][0].startswith(expected)
    os.rename(f"{b.image_dir}/000005.png", f"{b.image_dir}/new.png")
    copies._images[1]["file_name"] = "new.png"  # a copy under another name
    for number in (8, 11, 20, 42):  # other pictures with the same names
        Path(b.image_dir, f"{number:06d}.png").write_bytes(bytes(number))
    expected = "2 of 6 validation images are also training images (new.png is 000005.png, 000033"
    assert data_notes(train, copies)["both"][0].startswith(expected)
    Path(b.image_dir, "new.png").unlink()
    for folder, content in ((a.image_dir, b"1234"), (b.image_dir, b"5678")):  # of one size and time
        Path(folder, "000033.png").write_bytes(content)
        os.utime(Path(folder, "000033.png"), (1, 1))
    assert "both" not in data_notes(train, copies)


def test_objects_beyond_max_dets_are_told_before_training():
    table = BoxTable(
        ["a", "b"],
        np.full((2, 2), 64.0),
        np.repeat([0, 1], [12, 11]),  # image 0: 12 boxes of class 0; image 1: 11 of class 1
        np.zeros((23, 4), np.float32),
        np.repeat([0, 1], [12, 11]),
        ("cat", "dog"),
    )
    val = SimpleNamespace(box_table=lambda transformed: table, ann_file="val.json")
    (text,) = beyond_max_dets(val, 11)
    assert text.startswith(
        "val.json: 1 of 2 evaluated images has more than 11 objects of a class, up to 12, and"
    )
    assert "val_evaluator.max_dets=12 evaluates more" in text
    assert beyond_max_dets(val, 12) == [] and beyond_max_dets(None, 12) == []
