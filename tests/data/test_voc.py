"""Pascal VOC layouts of images of 100 x 50: boxes are computed by hand, and compared to hotcoco."""

import hotcoco
import pytest
from PIL import Image

from det_losses.data.voc import VocSplit

SIZE = "<size><width>100</width><height>50</height><depth>3</depth></size>"


def thing(name, corners, more=""):
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"\n  <object>\n<name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


@pytest.fixture
def voc(tmp_path):
    """Write a layout: ``voc({"a": xml of the objects}, train="a")`` -> the list of the images."""

    def make(objects, train=None, size=SIZE, suffix=".jpg"):
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (tmp_path / folder).mkdir(parents=True)
        for name, text in objects.items():
            Image.new("RGB", (100, 50)).save(tmp_path / "JPEGImages" / f"{name}{suffix}")
            xml = f"<annotation><filename>{name}.jpg</filename>{size}{text}\n</annotation>"
            (tmp_path / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
        listing = tmp_path / "ImageSets" / "Main" / "train.txt"
        listing.write_text("\n".join(objects) if train is None else train, encoding="utf-8")
        (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("")
        return listing

    return make


PART = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"


def test_objects_become_boxes_and_classes_are_those_of_all_splits(voc):
    objects = thing("dog", (1, 1, 100, 50), PART) + thing("dog", (11, 21, 20, 30), "<truncated>1")
    objects = objects.replace("<truncated>1", "<truncated>1</truncated>")
    listing = voc({"b": objects, "é": "", "other": thing("cat", (1, 1, 2, 2))}, train="é\nb\n")
    coco, notes = VocSplit(listing).coco()
    assert [(i["id"], i["file_name"]) for i in coco["images"]] == [(1, "é.jpg"), (2, "b.jpg")]
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    # Counted from 1, the last pixel included: 1 to 100 is the whole width, 11 to 20 ten pixels.
    boxes = [
        (b["image_id"], b["category_id"], b["bbox"], b["iscrowd"]) for b in coco["annotations"]
    ]
    assert boxes == [(2, 2, [0, 0, 100, 50], 0), (2, 2, [10, 20, 10, 10], 0)]
    assert notes == []


def test_boxes_and_difficult_objects_agree_with_hotcoco(voc):
    hard = "<difficult>1</difficult>"
    objects = {
        "a": thing("dog", (3, 4, 50, 30), hard) + thing("cat", (60, 7, 99, 49)),
        "b": thing("cat", (1, 1, 7, 9)),
    }
    listing = voc(objects)
    reference = hotcoco.COCO.from_voc(str(listing.parents[2])).dataset
    coco, notes = VocSplit(listing).coco()
    assert coco["annotations"] == reference["annotations"]
    assert coco["images"] == [pytest.approx(image) for image in reference["images"]]
    assert notes == ["1 object marked as difficult: read as crowd"]


def test_coordinates_that_count_from_zero(voc):
    coco, notes = VocSplit(
        voc({"a": thing("dog", (0, 0, 99.5, 50)), "b": thing("dog", (10, 10, 20, 20))})
    ).coco()
    assert [box["bbox"] for box in coco["annotations"]] == [[0, 0, 99.5, 50], [10, 10, 10, 10]]
    assert notes == [
        "coordinates are taken as counted from 0, because a.xml has a coordinate below 1"
    ]


@pytest.mark.parametrize("size", ["", SIZE.replace("100", "0"), "<size><width/></size>"])
def test_a_size_that_is_absent_is_that_of_the_image(voc, size):
    # The image has another extension than its annotation says.
    coco, notes = VocSplit(voc({"a": thing("dog", (1, 1, 9, 9))}, size=size, suffix=".PNG")).coco()
    assert coco["images"] == [{"id": 1, "file_name": "a.PNG", "width": 100, "height": 50}]
    assert notes == ["1 annotation without a size; that of the image is used"]


def test_a_list_with_the_flags_of_a_class(voc):
    listing = voc({"a 1": thing("dog", (1, 1, 9, 9)), "b": ""}, train="a 1\nb -1\nb  1\n\n")
    coco, notes = VocSplit(listing).coco()
    assert [image["file_name"] for image in coco["images"]] == ["a 1.jpg", "b.jpg"]
    assert notes == ["1 image listed again, and used once"]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ("<object>", "a.xml, line 2: not an xml file"),
        (thing("", (1, 1, 9, 9)), "a.xml, line 2: an object needs a name .* got no name"),
        (
            thing("dog", (1, 1, 9, 9)) + thing("dog", (1, "x", 9, 9)),
            "a.xml, line 4: an object needs .* got bndbox 1, x, 9, 9",
        ),
        ("<object><name>dog</name></object>", "a.xml, line 1: an object needs a name and a bndbox"),
    ],
)
def test_a_wrong_annotation_is_named(voc, objects, message):
    listing = voc({"a": objects})
    with pytest.raises(ValueError, match=message):
        VocSplit(listing).coco()


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("train.txt", "a\nx\n", "train.txt, line 2: no annotation .*Annotations/x.xml"),
        ("train.txt", "\n", "train.txt: lists no image"),
        ("test.txt", "a", "test.txt: no such list of images; .* has train.txt, val.txt"),
    ],
)
def test_a_wrong_list_is_named(voc, name, lines, message):
    listing = voc({"a": ""}, train=lines)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        VocSplit(listing.with_name(name))
