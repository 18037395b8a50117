from collections import Counter

import mmengine.dataset
import pytest
import torch

from det_losses.comparison.preflight import count_images, ground_truth
from det_losses.data.coco import CocoDataset
from det_losses.data.wrappers import ClassBalancedDataset, ConcatDataset, RepeatDataset
from det_losses.registry import DATASETS

CROP = dict(type="RandomResizedCrop", size=(32, 32))


def other_ids(coco):
    new = {3: 7, 7: 18, 18: 3}
    for entry in coco["categories"]:
        entry["id"] = new[entry["id"]]
    for box in coco["annotations"]:
        box["category_id"] = new[box["category_id"]]


def config(files, **options):
    return dict(type="CocoDataset", ann_file=files.ann_file, image_dir=files.image_dir, **options)


def named(dataset, target):
    return [dataset.metainfo["classes"][label] for label in target["labels"]]


def boxed(dataset, target):
    names = dict(zip(*map(dataset.metainfo.get, ("category_ids", "classes")), strict=True))
    return [(names[b["category_id"]], b["bbox"]) for b in target["coco"]["annotations"]]


class Plain:
    """A dataset without any of CocoDataset's methods but those of a sample."""

    def __init__(self):
        self.metainfo = {"classes": ("dog", "fox"), "category_ids": (1, 2)}

    def __len__(self):
        return 3

    def __getitem__(self, index):
        labels = torch.tensor([index % 2])
        return torch.zeros(3, 8, 8, dtype=torch.uint8), {"labels": labels, "image_id": index}


def test_concatenated_datasets_are_joined_by_name(tiny_coco, tmp_path):
    first, second = tiny_coco("first"), tiny_coco("second", change=other_ids)
    parts = [config(each, test_mode=True) for each in (first, second)]
    dataset = DATASETS.build(dict(type="ConcatDataset", datasets=parts))
    singles = [DATASETS.build(part) for part in parts]
    assert dataset.metainfo == singles[0].metainfo and len(dataset) == 12
    assert dataset.image_dir == str(tmp_path)
    for index in range(12):
        image, target = dataset[index]
        single = singles[index // 6]
        expected, own = single[index % 6]
        assert torch.equal(image, expected) and torch.equal(target["boxes"], own["boxes"])
        assert named(dataset, target) == named(single, own)
        assert dataset.get_cat_ids(index) == sorted(set(target["labels"].tolist()))
        assert target["coco"] == dataset.ground_truth(index)
        assert boxed(dataset, target) == boxed(single, own)
        assert target["image_id"] == target["coco"]["image"]["id"] == dataset.image_ids[index]
        assert (tmp_path / target["coco"]["image"]["file_name"]).is_file()
    truth = ground_truth(dataset)  # of an evaluation: pycocotools' ids are unique
    assert len({image["id"] for image in truth["images"]}) == 12
    names = {c["id"]: c["name"] for c in truth["categories"]}
    counts = Counter(names[box["category_id"]] for box in truth["annotations"])
    assert counts == {"cat": 6, "dog": 6, "bird": 6}  # twice 3, 3 and 3


def test_a_dataset_of_another_package_can_be_concatenated(tiny_coco):
    dataset = ConcatDataset([config(tiny_coco()), Plain()])
    assert dataset.metainfo["classes"] == ("cat", "dog", "bird", "fox")
    # dog keeps the 7 of the first; 2 is free for fox
    assert dataset.metainfo["category_ids"] == (3, 7, 18, 2)
    assert [named(dataset, dataset[6 + i][1]) for i in range(3)] == [["dog"], ["fox"], ["dog"]]
    dataset.set_epoch(3)


def test_repeated_images_are_augmented_differently_within_an_epoch(tiny_coco):
    dataset = RepeatDataset(config(tiny_coco(), transforms=[CROP]), times=3)
    assert len(dataset) == 18 and count_images(dataset) == 6
    dataset.set_epoch(2, 5)
    copies = [dataset[index][0] for index in (1, 7, 13)]
    assert not any(torch.equal(copies[i], copies[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    again = RepeatDataset(config(tiny_coco("again"), transforms=[CROP]), times=3)
    again.set_epoch(2, 5)
    assert all(torch.equal(again[i][0], image) for i, image in zip((1, 7, 13), copies, strict=True))


def test_nested_wrappers_number_all_copies(tiny_coco):
    inner = dict(type="RepeatDataset", times=2, dataset=config(tiny_coco(), transforms=[CROP]))
    dataset = RepeatDataset(dict(type="ConcatDataset", datasets=[inner]), times=2)
    dataset.set_epoch(0, 0)
    assert len(dataset) == 24 and count_images(dataset) == 6
    images = [dataset[index][0] for index in (0, 6, 12, 18)]  # four copies of the first
    assert len({image.numpy().tobytes() for image in images}) == 4


def test_class_balanced_repeats_as_often_as_mmengine(tiny_coco):
    source = CocoDataset(*tiny_coco())

    class Reference(mmengine.dataset.ClassBalancedDataset):
        def __init__(self):  # the check of its constructor wants mmengine's own datasets
            self.dataset = source

    for threshold in (0.1, 0.5, 2.0, 9.0):
        factors = Reference()._get_repeat_factors(source, threshold)
        dataset = ClassBalancedDataset(source, threshold)
        counts = Counter(dataset.image_ids)
        assert list(counts) == source.image_ids
        assert [counts[i] for i in source.image_ids] == [int(-(-f // 1)) for f in factors]


def test_a_broken_image_is_left_out_in_wrappers(tiny_coco, tmp_path):
    files = tiny_coco()
    (tmp_path / "tiny" / "images" / "000008.png").write_bytes(b"")
    dataset = RepeatDataset(config(files, skip_broken=True), times=2)
    assert count_images(dataset) == 5 and 8 not in dataset.image_ids


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: RepeatDataset(c, 0), "times: must be at least 1, got 0"),
        (
            lambda c: RepeatDataset({**c, "test_mode": True}, 2),
            "type: RepeatDataset repeats images, which",
        ),
        (lambda c: ClassBalancedDataset(c, -1), "oversample_thr: must be above 0, got -1"),
        (lambda c: ClassBalancedDataset(Plain(), 0.1), "Plain has no method get_cat_ids"),
        (lambda c: ConcatDataset([]), "datasets: ConcatDataset needs a list of datasets"),
        (lambda c: ConcatDataset([[1, 2]]), "metainfo of list has no 'classes'"),
    ],
)
def test_wrong_arguments(tiny_coco, make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(config(tiny_coco()))
