import json
import os

import pytest

from det_losses.data.coco_json import load_coco_json, read_coco_json


def entry(key, index, **changes):
    return lambda coco: coco[key][index].update(changes)


def test_the_error_of_a_missing_file_has_the_searched_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such annotation file.*start at"):
        load_coco_json(tmp_path / "none.json")


def test_broken_json_names_the_file(tmp_path):
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(ValueError, match=r"cut\.json: not a JSON file .*complete\?"):
        load_coco_json(tmp_path / "cut.json")


def test_a_binary_file_is_not_json(tmp_path):
    (tmp_path / "picture.json").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match="not a JSON file"):
        load_coco_json(tmp_path / "picture.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "no list 'images' or 'annotations' or 'categories' .found a list"),
        ({"images": [], "info": 1}, "no list 'annotations' or 'categories' .found keys"),
        ({"images": [], "annotations": {}, "categories": []}, "no list 'annotations'"),
        ({"images": [], "annotations": [], "categories": []}, "'categories' is empty"),
    ],
)
def test_json_that_is_not_a_coco_file(tmp_path, content, message):
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"other\.json: .*{message}"):
        load_coco_json(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (entry("annotations", 2, image_id=99), r"annotations\[2\] \(id 3\): 'image_id' is 99"),
        (entry("annotations", 2, category_id=1), r"annotations\[2\] \(id 3\): 'category_id' is 1,"),
        (entry("annotations", 1, bbox=[1, 2, 3]), r"annotations\[1\] \(id 2\): 'bbox' must be 4 f"),
        (entry("annotations", 1, bbox=[1, 2, 3, float("nan")]), "'bbox' must be 4 finite.*nan"),
        (entry("annotations", 1, bbox=[1, 2, 3, "4"]), "'bbox' must be 4 finite"),
        (entry("annotations", 1, bbox=None), "'bbox' must be 4 finite.*None"),
        (entry("annotations", 1, area="x"), r"\(id 2\): 'area' must be a number.*got 'x'"),
        (entry("annotations", 1, area=-5), r"\(id 2\): 'area' must be a number.*got -5"),
        (entry("annotations", 1, iscrowd="0"), r"\(id 2\): 'iscrowd' must be 0 or 1, got '0'"),
        (entry("annotations", 1, id=1), "annotations: the id 1 occurs twice"),
        (entry("images", 1, id=11), "images: the id 11 occurs twice"),
        (entry("images", 1, id="5"), r"images\[1\]: 'id' must be an integer, got '5'"),
        (lambda coco: coco["images"].append("x"), r"images\[6\]: 'id' must be.*got 'x'"),
        (entry("images", 0, width=0), r"images\[0\] \(id 11\): 'width' must be a positive.*got 0"),
        (entry("images", 0, height=None), "'height' must be a positive integer.*got None"),
        (entry("images", 0, file_name=""), "'file_name' must be"),
        (entry("categories", 0, name=3), r"categories\[0\] \(id 18\): 'name' must be a string"),
        (entry("categories", 0, name="cat"), "categories: the name 'cat' occurs twice"),
        (entry("categories", 0, id=3), "categories: the id 3 occurs twice"),
    ],
)
def test_each_invalid_entry_is_named(tiny_coco, change, message):
    ann_file = tiny_coco(change=change).ann_file
    with pytest.raises(ValueError, match=rf"instances\.json: {message}|{message}") as error:
        load_coco_json(ann_file)
    assert ann_file in str(error.value)


def test_missing_area_and_iscrowd_are_filled_and_masks_left_out(tiny_coco):
    def change(coco):
        first = coco["annotations"][0]
        del first["area"], first["iscrowd"]
        first["segmentation"] = [[0, 0, 1, 0, 1, 1]]

    ann_file = tiny_coco(change=change).ann_file
    loaded = load_coco_json(ann_file)["annotations"][0]
    # the box is 40 px wide and 20 px high
    assert (loaded["area"], loaded["iscrowd"]) == (800, 0)
    assert "segmentation" not in loaded
    assert "segmentation" in read_coco_json(ann_file)["annotations"][0]


def test_file_is_read_again_only_after_a_change(tiny_coco):
    ann_file = tiny_coco().ann_file
    first = load_coco_json(ann_file)
    assert load_coco_json(ann_file) is first
    os.utime(ann_file, ns=(1, 1))
    assert load_coco_json(ann_file) is not first


def test_real_annotations_are_sound(coco_subset):
    assert len(load_coco_json(coco_subset / "instances_val.json")["images"]) == 400
