import json
from pathlib import Path

import pytest

from det_losses.data.coco import CocoDataset
from det_losses.data.join import common_folder, join_classes, load_joined, offsets


def other_ids(coco):
    """The names of the tiny set under other ids, and one new class in place of bird."""
    new = {3: (7, "cat"), 7: (1, "dog"), 18: (3, "fish")}
    coco["categories"] = [{"id": i, "name": name} for i, name in new.values()]
    for box in coco["annotations"]:
        box["category_id"] = new[box["category_id"]][0]


def test_classes_are_joined_by_name_and_keep_the_first_ids():
    parts = [[(3, "cat"), (7, "dog")], [(7, "cat"), (1, "dog"), (3, "fish"), (20, "bird")]]
    # fish: its id 3 is cat's, the next free id after 20 is 21; bird keeps 20
    joined, notes = join_classes(parts, "ab")
    assert joined == {"cat": 3, "dog": 7, "fish": 21, "bird": 20}
    rest = "such objects in its images count as background"
    assert notes == [f"a has no class bird, fish: {rest}"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([[1, 2], [3, 4]], [0, 0]),  # none occurs twice
        ([[1, 5], [5, 6], [1]], [0, 6, 13]),  # 0 to 5, 6 to 12, from 13
        ([[0], [-2, 0]], [0, 3]),  # -2 becomes 1
        ([[1, 1], [2]], [0, 0]),  # repeated within one set, not in two
        ([[], [4], [4]], [0, 1, 6]),
    ],
)
def test_ids_are_shifted_only_if_two_sets_share_one(ids, expected):
    assert offsets(ids) == expected


def test_common_folder(tmp_path):
    assert common_folder(["a", "a"]) == ("a", ["", ""])
    dirs = [tmp_path / "train", tmp_path / "more" / "images"]
    assert common_folder(dirs) == (str(tmp_path), ["train", "more/images"])
    assert common_folder([tmp_path, dirs[0]]) == (str(tmp_path), ["", "train"])


def test_two_files_are_one_dataset(tiny_coco, tmp_path):
    first, second = tiny_coco("first"), tiny_coco("second", change=other_ids)
    dataset = CocoDataset(*zip(first, second, strict=True), test_mode=True)
    assert len(dataset) == 12
    # by ascending id: cat 3, dog 7, bird 18, and fish under the next free id
    assert dataset.metainfo["classes"] == ("cat", "dog", "bird", "fish")
    assert dataset.metainfo["category_ids"] == (3, 7, 18, 19)
    names = [["cat", "dog", "bird"], ["cat", "dog", "fish"]]
    singles = [CocoDataset(*first, test_mode=True), CocoDataset(*second, test_mode=True)]
    for part, single in enumerate(singles):
        for index in range(6):
            image, target = dataset[6 * part + index]
            expected, own = single[index]
            assert image.equal(expected) and target["boxes"].equal(own["boxes"])
            classes = single.metainfo["classes"]
            assert {*classes} == {*names[part]}
            joined = dataset.metainfo["classes"]
            assert [joined[i] for i in target["labels"]] == [classes[i] for i in own["labels"]]
            truth = target["coco"]
            assert truth["image"]["id"] == target["image_id"]
            assert (tmp_path / truth["image"]["file_name"]).is_file()
            assert all(box["image_id"] == target["image_id"] for box in truth["annotations"])
    ids = [box["id"] for i in range(12) for box in dataset.ground_truth(i)["annotations"]]
    assert len(ids) == len(set(ids)) == 18
    assert dataset.image_dir == str(tmp_path)


def test_a_class_that_one_file_lacks_is_told(tiny_coco):
    first, second = tiny_coco("first"), tiny_coco("second", change=other_ids)
    notes = load_joined(*zip(first, second, strict=True))[-1]
    rest = "such objects in its images count as background"
    assert notes == [
        f"{first.ann_file} has no class fish: {rest}",
        f"{second.ann_file} has no class bird: {rest}",
    ]


def test_classes_and_number_are_chosen_from_all_files(tiny_coco):
    pairs = list(zip(tiny_coco("first"), tiny_coco("second", change=other_ids), strict=True))
    assert CocoDataset(*pairs, classes=["fish"]).image_ids == [42 + 1 + i for i in (8, 33)]
    assert len(CocoDataset(*pairs, num_images=7)) == 7


def test_one_folder_for_all_files(tiny_coco, tmp_path):
    ann_file, image_dir = tiny_coco()
    coco = json.loads(Path(ann_file).read_text())
    halves = []
    for number, keep in enumerate(([5, 8, 11], [20, 33, 42])):
        part = {
            "images": [i for i in coco["images"] if i["id"] in keep],
            "annotations": [a for a in coco["annotations"] if a["image_id"] in keep],
            "categories": coco["categories"],
        }
        halves.append(tmp_path / f"{number}.json")
        halves[-1].write_text(json.dumps(part))
    joined, whole = CocoDataset(halves, image_dir), CocoDataset(ann_file, image_dir)
    assert joined.metainfo == whole.metainfo and joined.image_ids == whole.image_ids
    for (image, target), (same, other) in zip(joined, whole, strict=True):
        assert image.equal(same) and target["boxes"].equal(other["boxes"])


@pytest.mark.parametrize(
    ("files", "folders", "message"),
    [
        (2, 3, "2 annotation files and 3 image folders: give one folder for all"),
        (0, 1, "0 annotation files"),
        (None, 2, "one annotation file needs one image folder"),
        (2, 1, "the image 000011.png is in both"),
    ],
)
def test_files_that_cannot_be_joined(tiny_coco, files, folders, message):
    ann_file, image_dir = tiny_coco()
    other = tiny_coco("other").ann_file
    with pytest.raises(ValueError, match=message):
        load_joined(ann_file if files is None else [ann_file, other][:files], [image_dir] * folders)
