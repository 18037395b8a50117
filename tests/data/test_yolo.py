"""YOLO layouts of three images of 100 x 50: boxes in pixels are computed by hand."""

import hotcoco
import pytest
from PIL import Image

from det_losses.data.yolo import YoloSplit

NAMES = "names: [cat, dog]\n"


@pytest.fixture
def yolo(tmp_path):
    """Write a layout: ``yolo({"a": "0 .5 .5 .2 .4"}, yaml)`` -> data.yaml."""

    def make(labels, content="train: images\n" + NAMES, images=("a", "b", "c")):
        (tmp_path / "images").mkdir()
        (tmp_path / "labels").mkdir()
        for name in images:
            Image.new("RGB", (100, 50)).save(tmp_path / "images" / f"{name}.png")
        for name, text in labels.items():
            (tmp_path / "labels" / f"{name}.txt").write_text(text, encoding="utf-8")
        file = tmp_path / "data.yaml"
        file.write_text(content, encoding="utf-8")
        return file

    return make


def boxes_of(file):
    coco, _ = YoloSplit(file, "train").coco()
    return [(box["image_id"], box["category_id"], box["bbox"]) for box in coco["annotations"]]


def test_labels_become_boxes_in_pixels_and_ids_are_kept(yolo):
    file = yolo({"a": "0 .5 .5 .2 .4\n\n1 .5 .5 1 1", "b": "", "é": "1.0 .25 .5 .5 1"})
    Image.new("RGB", (100, 50)).save(file.parent / "images" / "é.png")
    coco, notes = YoloSplit(file, "train").coco()
    files = {image["id"]: image["file_name"] for image in coco["images"]}
    assert files == {1: "a.png", 2: "b.png", 3: "c.png", 4: "é.png"}  # by name
    assert {(image["width"], image["height"]) for image in coco["images"]} == {(100, 50)}
    assert coco["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    # The first is 20 x 20 pixels around 50, 25. An empty label file is no error.
    assert boxes_of(file) == [
        (1, 0, pytest.approx([40, 15, 20, 20])),
        (1, 1, [0, 0, 100, 50]),
        (4, 1, [0, 0, 50, 50]),
    ]
    assert [box["area"] for box in coco["annotations"]] == pytest.approx([400, 5000, 2500])
    assert notes == ["1 of 4 images has no label file, so no objects (c.png)"]


def test_boxes_agree_with_hotcoco(yolo):
    labels = {name: f"0 .{n}1 .4 .1 .2\n1 .3 .{n}7 .333 .05" for n, name in enumerate("abc", 1)}
    file = yolo(labels)
    (file.parent / "labels" / "data.yaml").write_text(NAMES)
    folders = [str(file.parent / name) for name in ("labels", "images")]
    reference = hotcoco.COCO.from_yolo(*folders).dataset["annotations"]
    ours = boxes_of(file)
    assert [box for _, _, box in ours] == [pytest.approx(box["bbox"]) for box in reference]
    # It numbers the classes from 1.
    assert [label + 1 for _, label, _ in ours] == [box["category_id"] for box in reference]


@pytest.mark.parametrize(
    ("line", "yaml", "box"),
    [
        # x from .1 to .5 and y from .2 to .6
        ("0 .1 .2 .5 .2 .5 .6 .1 .6", "", [10, 10, 40, 20]),
        ("0 .1 .2 .5 .3 .2 .6", "", [10, 10, 40, 20]),
        # keypoints (x, y, visibility) after the box
        ("0 .5 .5 .2 .4 .5 .5 2 .6 .6 2", "kpt_shape: [2, 3]\n", [40, 15, 20, 20]),
        # rounded labels that reach beyond the image stay as they are
        ("0 .5 .5 1.004 1", "", [-0.2, 0, 100.4, 50]),
    ],
)
def test_a_line_becomes_a_box(yolo, line, yaml, box):
    file = yolo({"a": line}, f"train: images\n{NAMES}{yaml}")
    assert boxes_of(file) == [(1, 0, pytest.approx(box))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 .5 .5 .2 .4", "the class must be one of 0 to 1 (data.yaml), got '2 .5"),
        ("-1 .5 .5 .2 .4", "the class must be"),
        ("cat .5 .5 .2 .4", "could not convert string to float: 'cat'"),
        ("0 50 20 10 10", "coordinates must be fractions of the image size, from 0 to 1"),
        ("0 .5 .5 nan .4", "coordinates must be fractions"),
        ("0 .5 .5 -.2 .4", "coordinates must be fractions"),
        ("0 .5 .5 .2", "expected class, x, y, width, height, or class and the x, y of three"),
        ("0 .5 .5 .2 .4 .9", "expected class, x, y, width, height"),
    ],
)
def test_a_wrong_line_is_named(yolo, line, message):
    file = yolo({"a": f"0 .5 .5 .1 .1\n{line}"})
    with pytest.raises(ValueError, match=r"labels/a.txt, line 2: ") as info:
        boxes_of(file)
    assert message in str(info.value)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: {0: cat, 1: 'traffic light'}", {0: "cat", 1: "traffic light"}),
        ("names:\n  0: no\n  1: 1.0\n  5: café", {0: "no", 1: "1.0", 5: "café"}),
        ("nc: 2", {0: "class_0", 1: "class_1"}),
    ],
)
def test_names_are_a_list_or_a_dict_of_texts(yolo, names, expected):
    file = yolo({"a": "0 .5 .5 .2 .4"}, f"train: images\n{names}\n")
    categories = YoloSplit(file, "train").coco()[0]["categories"]
    assert {each["id"]: each["name"] for each in categories} == expected


@pytest.mark.parametrize(
    "train",
    [
        "train: images",
        "train: ./images/",
        "train: ../images",  # as in exports of Roboflow
        "path: {parent}\ntrain: {name}\\images",  # written on Windows
        "path: .\ntrain: images",
        "path: {folder}\ntrain: images",
        "train: [images/sub, images]",  # images/sub again: each image is used once
        "train: list.txt",
        "train: sub/list.txt",
    ],
)
def test_places_of_the_images(yolo, tmp_path, train):
    names = dict(folder=tmp_path, parent=tmp_path.parent, name=tmp_path.name)
    file = yolo({"a": "0 .5 .5 .2 .4"}, f"{train.format(**names)}\n{NAMES}", images=("a",))
    for folder in ("sub", "images/sub", "labels/sub"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "images" / "sub" / "d.JPG", format="jpeg")
    (tmp_path / "labels" / "sub" / "d.txt").write_text("1 .5 .5 .5 .5")
    listed = f"images\\a.png\n{tmp_path}/images/sub/d.JPG\n"
    (tmp_path / "list.txt").write_text(f"./{listed}")
    (tmp_path / "sub" / "list.txt").write_text(listed)  # relative to the data
    coco, _ = YoloSplit(file, "train").coco()
    assert sorted(image["file_name"] for image in coco["images"]) == ["a.png", "sub/d.JPG"]
    boxes = sorted(box["bbox"] for box in coco["annotations"])
    assert boxes == [[10, 5, 20, 10], pytest.approx([40, 15, 20, 20])]


def test_labels_are_of_the_upright_image(yolo):
    file = yolo({"a": "0 .5 .25 1 .5"}, images=())
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: 100 x 50 is shown as 50 x 100
    Image.new("RGB", (100, 50)).save(file.parent / "images" / "a.jpg", exif=exif)
    coco, _ = YoloSplit(file, "train").coco()
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (50, 100)
    assert coco["annotations"][0]["bbox"] == [0, 0, 50, 50]


def test_labels_of_other_images_are_told(yolo):
    notes = YoloSplit(yolo({"a": "0 .5 .5 .2 .4", "x": "", "classes": ""}), "train").coco()[1]
    assert notes[1:] == ["1 label file without an image (x.txt)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- images", "data.yaml: expected train, val and names"),
        ("train: [images", "data.yaml, line 1: not a yaml file"),
        (f"val: images\n{NAMES}", "data.yaml: no 'train' .* It has val, names"),
        (f"train: image\n{NAMES}", "data.yaml: train: .*/image: no such folder or file"),
        (f"path: absent\ntrain: images\n{NAMES}", "data.yaml: path: no folder 'absent', neither"),
        ("train: images", "data.yaml: names must be a list of the classes"),
        ("train: images\nnc: 3\n" + NAMES, "data.yaml: nc is 3, but there are 2 names"),
        ("train: images\nnames: [cat, cat]", "data.yaml: names has 'cat' twice"),
        ("train: images\nnames: {a: cat}", "data.yaml: names: expected index: name, got 'a'"),
        (f"train: labels\n{NAMES}", "data.yaml: train: .*/labels has no image"),
        (f"train: list.txt\n{NAMES}", "list.txt, line 2: no image 'images/x.png'"),
    ],
)
def test_what_is_wrong_in_the_yaml_is_named(yolo, content, message):
    file = yolo({"a": "0 .5 .5 .2 .4"}, content)
    (file.parent / "list.txt").write_text("images/a.png\nimages/x.png\n")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        YoloSplit(file, "train")


def test_data_without_any_label_file_is_refused(yolo):
    file = yolo({})
    with pytest.raises(ValueError, match=r"none of the 3 images has a label file; for .*a.png it"):
        YoloSplit(file, "train").coco()


def test_labels_can_lie_beside_the_images(tmp_path):
    Image.new("RGB", (100, 50)).save(tmp_path / "a.png")
    for name, text in {"a": "0 .5 .5 1 1", "b": "", "train": "a.png", "classes": "cat"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "data.yaml").write_text(f"train: train.txt\n{NAMES}")
    coco, notes = YoloSplit(tmp_path / "data.yaml", "train").coco()
    assert coco["annotations"][0]["bbox"] == [0, 0, 100, 50]
    assert notes == ["1 label file without an image (b.txt)"]
