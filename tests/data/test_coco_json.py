import json
import os
from pathlib import Path

import pytest

from det_losses.data.coco_json import conversions, load_coco_json, read_coco_json


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
        ({"images": [], "annotations": []}, "no list 'categories' .found keys"),
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
        (entry("annotations", 1, bbox=[1, 2, 3, 10**400]), r"'bbox' must be 4 finite.*1000"),
        (entry("annotations", 1, bbox=None, segmentation=[[1, 2, 3]]), "'bbox' must be 4 finite"),
        (entry("annotations", 1, bbox=None, segmentation="525"), "'bbox' must be 4 finite"),
        (entry("annotations", 1, bbox=None, segmentation={"counts": "x"}), "'size' must be"),
        (entry("annotations", 1, area=10**400), r"\(id 2\): 'area' must be a number.*got 1000"),
        (entry("images", 0, width=10**10), "'width' must be a positive integer.*got 10000000000"),
        (entry("images", 0, file_name="a\0b"), "'file_name' must be"),
        (entry("images", 0, file_name="a\ud800b"), "'file_name' must be"),
        (entry("categories", 0, name="a\ud800b"), r"\(id 18\): 'name' is not valid Unicode"),
        (entry("annotations", 1, area="x"), r"\(id 2\): 'area' must be a number.*got 'x'"),
        (entry("annotations", 1, area=-5), r"\(id 2\): 'area' must be a number.*got -5"),
        (entry("annotations", 1, iscrowd="0"), r"\(id 2\): 'iscrowd' must be 0 or 1, got '0'"),
        (entry("annotations", 1, id=1), "annotations: the id 1 occurs twice"),
        (entry("images", 1, id=11), "images: the id 11 occurs twice"),
        (entry("images", 1, id="x5"), r"images\[1\]: 'id' must be an integer from 0.*got 'x5'"),
        (entry("images", 1, id=True), r"images\[1\]: 'id' must be an integer from 0.*got True"),
        (entry("images", 1, id=-5), r"images\[1\]: 'id' must be an integer from 0 .*got -5"),
        (entry("images", 1, id=2**53), r"'id' must be an integer from 0 to 2\^53 - 1, got 9007"),
        (entry("categories", 1, id=2.5), r"categories\[1\]: 'id' must be an integer.*got 2.5"),
        (lambda coco: coco["images"].append("x"), r"images\[6\]: must be an object.*got 'x'"),
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
        coco["annotations"][1]["iscrowd"] = True

    ann_file = tiny_coco(change=change).ann_file
    loaded = load_coco_json(ann_file)["annotations"][0]
    # the box is 40 px wide and 20 px high
    assert (loaded["area"], loaded["iscrowd"]) == (800, 0)
    assert type(load_coco_json(ann_file)["annotations"][1]["iscrowd"]) is int
    assert "segmentation" not in loaded
    assert "segmentation" in read_coco_json(ann_file)["annotations"][0]


def test_further_errors_are_counted(tiny_coco):
    def change(coco):
        for annotation in coco["annotations"][:4]:
            annotation["bbox"] = [1, 2, 3]

    with pytest.raises(ValueError, match=r"\[0\] \(id 1\): .*3 more of the 9 annotations have"):
        load_coco_json(tiny_coco(change=change).ann_file)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_of_unicode(tiny_coco, encoding):
    plain = Path(tiny_coco(change=entry("categories", 0, name="Vögel 鳥")).ann_file)
    text = json.dumps(json.loads(plain.read_text()), ensure_ascii=False)
    other = plain.with_name("other.json")
    other.write_bytes(text.encode(encoding))
    assert load_coco_json(other) == load_coco_json(plain)


@pytest.mark.parametrize("number", [str, float])
def test_whole_numbers_as_text_or_float_are_read(tiny_coco, number):
    def change(coco):
        for key, fields in (
            ("images", ("id", "width", "height")),
            ("annotations", ("id", "image_id", "category_id")),
            ("categories", ("id",)),
        ):
            for each in coco[key]:
                each.update({field: number(each[field]) for field in fields})

    path = tiny_coco(change=change).ann_file
    assert load_coco_json(path) == load_coco_json(tiny_coco("plain").ann_file)
    # 6 images, 9 annotations, 3 categories
    assert conversions(path) == (
        "ids or sizes that are text or decimal numbers, read as whole numbers: "
        f"{6 * 3 + 9 * 3 + 3}",
    )


def test_absent_annotation_ids_and_uuids_are_numbered(tiny_coco):
    def change(coco):
        del coco["annotations"][0]["id"]
        coco["annotations"][3]["id"] = "3f2b-c0"

    path = tiny_coco(change=change).ann_file
    # the largest of the other ids is 9
    ids = [annotation["id"] for annotation in load_coco_json(path)["annotations"]]
    assert ids == [10, 2, 3, 11, 5, 6, 7, 8, 9]
    assert conversions(path) == ("2 annotations without an id that is a number: numbered",)


def test_boxes_from_polygons(tiny_coco):
    def change(coco):
        first, second = coco["annotations"][:2]
        del first["bbox"], first["area"]
        first["segmentation"] = [[10, 8, 50, 9, 20, 28], [12, 30, 14, 30, 14, 31.5]]
        second.update(bbox=[], segmentation=[[60, 30, 80, 30, 80, 60, 60, 60]])

    path = tiny_coco(change=change).ann_file
    first, second = load_coco_json(path)["annotations"][:2]
    # both polygons: x from 10 to 50, y from 8 to 31.5
    assert first["bbox"] == [10, 8, 40, 23.5] and second["bbox"] == [60, 30, 20, 30]
    assert [note[:37] for note in conversions(path)] == [
        "2 annotations without 'bbox': the enc",
        "1 annotation without 'area': that of ",
    ]


def without_boxes(*segmentations):
    def change(coco):
        for annotation, segmentation in zip(coco["annotations"], segmentations, strict=False):
            del annotation["bbox"]
            annotation["segmentation"] = segmentation

    return change


def test_boxes_from_masks(tiny_coco):
    # 4 x 3 pixels in column order: 5 zeros, then ones in rows 1 to 2 of column 1
    plain = {"size": [4, 3], "counts": [5, 2, 5]}
    # the same as text, which pycocotools writes
    text = {"size": [4, 3], "counts": "525"}
    path = tiny_coco(change=without_boxes(plain, text)).ann_file
    first, second = load_coco_json(path)["annotations"][:2]
    assert first["bbox"] == second["bbox"] == [1, 1, 1, 2]
    assert conversions(path) == (
        "2 annotations without 'bbox': the enclosing boxes of masks (RLE) are used",
    )


def test_bad_masks_are_one_error(tiny_coco):
    bad = {"size": [4, 3], "counts": [5, 2, 4]}
    path = tiny_coco(change=without_boxes(bad, bad, bad)).ann_file
    message = (
        r"\[0\] \(id 1\): there is no 'bbox', and 'segmentation' is not a mask: its runs must .*"
        r"their sum is 11\. Correct.* 2 more of the 9 annotations have errors"
    )
    with pytest.raises(ValueError, match=message):
        load_coco_json(path)


def test_a_json_without_annotations_is_a_set_without_boxes(tiny_coco):
    path = tiny_coco(change=lambda coco: coco.pop("annotations")).ann_file
    assert load_coco_json(path)["annotations"] == []
    assert conversions(path) == ("there is no list 'annotations', so no image has a box",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [{"id": 4, "width": 3, "width": 4}]}', "'width' occurs twice.*with id 4"),
        ('{"images": [], "annotations": [], "images": []}', "the key 'images' occurs twice in one"),
        ("[" * 200_000, "nested too deeply"),
        ('{"images": [1' + "0" * 5000 + "]}", "not a JSON file .*digits"),
        ("", "not a JSON file"),
    ],
)
def test_json_that_would_be_read_wrongly_or_not_at_all(tmp_path, text, message):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(ValueError, match=rf"odd\.json: .*{message}") as error:
        load_coco_json(tmp_path / "odd.json")
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_file_is_read_again_only_after_a_change(tiny_coco):
    ann_file = tiny_coco().ann_file
    first = load_coco_json(ann_file)
    assert load_coco_json(ann_file) is first
    os.utime(ann_file, ns=(1, 1))
    assert load_coco_json(ann_file) is not first


def test_real_annotations_are_sound(coco_subset):
    assert len(load_coco_json(coco_subset / "instances_val.json")["images"]) == 400
