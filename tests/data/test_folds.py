"""Which images share a fold, and what a dataset does with a fold."""

import copy
import random

import numpy as np
import pytest

from det_losses.data.coco import CocoDataset
from det_losses.data.folds import assign_folds, classes_in_one_fold
from det_losses.errors import InputError


def made(count, *, share=(1.0, 0.5, 0.1), length=1, seed=0):
    """COCO json: image i is of video i // length; it has class c with probability share[c]."""
    rng = np.random.default_rng(seed)
    images = [dict(id=3 * i, file_name=f"{i}.jpg", video_id=i // length) for i in range(count)]
    pairs = [(3 * i, c) for i in range(count) for c, p in enumerate(share) if rng.random() < p]
    boxes = [dict(id=n, image_id=i, category_id=c, iscrowd=0) for n, (i, c) in enumerate(pairs)]
    names = [dict(id=c, name=f"class {c}") for c in range(len(share))]
    return dict(images=images, annotations=boxes, categories=names)


def divide(coco, count, key=None):
    ids = [image["id"] for image in coco["images"]]
    return assign_folds(coco, ids, [c["id"] for c in coco["categories"]], count, key, source="x")


def images_per_fold(coco, fold_of, count, category_id=None):
    chosen = {b["image_id"] for b in coco["annotations"] if b["category_id"] == category_id}
    ids = fold_of if category_id is None else chosen
    return np.bincount([fold_of[i] for i in ids], minlength=count)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_single_images_are_balanced_in_number_and_in_classes(count):
    coco = made(203)
    found = divide(coco, count)
    assert set(found) == {image["id"] for image in coco["images"]}
    assert np.ptp(images_per_fold(coco, found, count)) <= 1
    for category in range(3):
        assert np.ptp(images_per_fold(coco, found, count, category)) <= 2


def test_groups_stay_together_and_are_about_balanced():
    coco = made(240, length=8)  # 30 videos
    found = divide(coco, 5, "video_id")
    for video in range(30):
        assert len({found[i["id"]] for i in coco["images"] if i["video_id"] == video}) == 1
    assert images_per_fold(coco, found, 5).tolist() == [48] * 5
    assert np.ptp(images_per_fold(coco, found, 5, 1)) <= 8  # of about 24


def test_a_large_group_has_a_fold_alone():
    coco = made(20)
    for image in coco["images"][:10]:
        image["video_id"] = "long"
    found = divide(coco, 2, "video_id")
    assert {found[image["id"]] for image in coco["images"][:10]} == {found[0]}
    assert images_per_fold(coco, found, 2).tolist() == [10, 10]


@pytest.mark.parametrize("key", [None, "video_id"])
def test_the_order_of_the_json_does_not_matter(key):
    coco = made(60, length=3)
    shuffled = copy.deepcopy(coco)
    for part in shuffled.values():
        random.Random(1).shuffle(part)
    assert divide(coco, 4, key) == divide(shuffled, 4, key)


@pytest.mark.parametrize(
    ("count", "key", "message"),
    [
        (1, None, "folds: the count must be a whole number of at least 2, got 1"),
        (2.0, None, "got 2.0"),
        (31, None, "x: 31 folds need at least 31 images, got 30"),
        (11, "video_id", "x: 11 folds need at least 11 different values of 'video_id', got 10"),
        (3, "patient", "x: the image 0.jpg has no 'patient' to group it by; it has file_name, id"),
        (5, None, "x: with 5 folds, one of them has no boxes of the chosen classes"),
    ],
)
def test_what_cannot_be_divided(count, key, message):
    coco = made(30, length=3)
    if message.endswith("classes"):
        coco["annotations"] = coco["annotations"][:4]
    with pytest.raises(InputError) as info:
        divide(coco, count, key)
    assert message in str(info.value)


def test_classes_that_no_model_of_their_fold_has_seen():
    coco = made(12, share=(1.0, 0.0))
    for index, image in enumerate(coco["images"]):
        image["fold"] = index % 3
    coco["annotations"] += [dict(id=99, image_id=i, category_id=1, iscrowd=0) for i in (0, 9)]
    assert classes_in_one_fold(coco) == ["class 1"]  # images 0 and 9 are in fold 0
    coco["annotations"][-1]["image_id"] = 3
    assert classes_in_one_fold(coco) == []


def test_a_dataset_trains_on_all_folds_but_the_one_it_is_tested_on(tiny_coco):
    files = tiny_coco()
    folds = dict(count=2)
    everything = CocoDataset(*files, folds=folds, test_mode=True)
    fold_of = {image["id"]: image["fold"] for image in everything._images}
    assert list(fold_of) == CocoDataset(*files).image_ids
    for index in (0, 1):
        train, test = (
            CocoDataset(*files, folds={**folds, "index": index}, test_mode=mode)
            for mode in (False, True)
        )
        assert test.image_ids == [i for i, fold in fold_of.items() if fold == index]
        assert train.image_ids == [i for i, fold in fold_of.items() if fold != index]
        assert test.ground_truth(0)["image"]["fold"] == index
    with pytest.raises(InputError, match="folds: index must be from 0 to 1, got 2"):
        CocoDataset(*files, folds={**folds, "index": 2})


def test_a_subset_is_divided_after_its_selection(coco_subset):
    options = dict(classes=["dog", "cat"], num_images=40, subset_seed=3)
    files = coco_subset / "instances_train.json", coco_subset / "images"
    parts = [
        CocoDataset(*files, **options, folds=dict(count=4, index=i), test_mode=True).image_ids
        for i in range(4)
    ]
    assert [len(part) for part in parts] == [10] * 4
    assert sorted(i for part in parts for i in part) == CocoDataset(*files, **options).image_ids
