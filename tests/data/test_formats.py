import json
import os

import pytest
from PIL import Image

from det_losses.data import formats
from det_losses.data.coco import CocoDataset
from det_losses.data.formats import as_coco, convert
from det_losses.paths import cache_root


@pytest.fixture
def yolo(tmp_path):
    """A data.yaml with two images and a label in each split."""
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("RGB", (100, 50), "red").save(tmp_path / "images" / split / f"{name}.png")
        (tmp_path / "labels" / split / "a.txt").write_text("0 .5 .5 .2 .4\n")
    file = tmp_path / "data.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    return file


def test_the_dataset_has_the_boxes_and_tells_of_the_conversion(yolo):
    file, images = as_coco(str(yolo), None, "val")
    assert file == [yolo.with_name("data.val.coco.json")]
    dataset = CocoDataset(*file, *images)
    assert dataset[0][1]["boxes"].tolist() == [[40, 15, 60, 35]]
    assert len(dataset) == 2
    assert dataset.notes == [
        f"converted from {yolo} to {file[0]}",
        "1 of 2 images has no label file, so no objects (b.png)",
    ]


def test_a_stored_json_is_used_until_a_source_changes(yolo):
    file, _ = convert(yolo, "train")
    made = os.stat(file).st_mtime_ns
    assert convert(yolo, "train")[0] == file
    assert os.stat(file).st_mtime_ns == made
    added = yolo.parent / "labels" / "train" / "b.txt"
    added.write_text("0 .5 .5 1 1\n")
    boxes = json.loads(convert(yolo, "train")[0].read_text())["annotations"]
    assert [box["image_id"] for box in boxes] == [1, 2]
    added.unlink()
    assert len(json.loads(convert(yolo, "train")[0].read_text())["annotations"]) == 1
    (yolo.parent / "images" / "train" / "b.png").unlink()
    assert len(json.loads(convert(yolo, "train")[0].read_text())["images"]) == 1


@pytest.mark.parametrize("content", ["{}", "not json", '{"info": {"description": "mine"}}'])
def test_a_file_of_the_user_is_not_overwritten(yolo, content):
    own = yolo.with_name("data.train.coco.json")
    own.write_text(content)
    file, _ = convert(yolo, "train")
    assert own.read_text() == content
    assert file.name == own.name and file.is_relative_to(cache_root())
    assert convert(yolo, "train")[0] == file


def test_a_read_only_folder_is_not_written(yolo, monkeypatch):
    def write(path, content):
        if path.parent == yolo.parent:
            raise PermissionError(13, "Permission denied", str(path))
        written(path, content)

    written = formats.write_json
    monkeypatch.setattr(formats, "write_json", write)
    file, _ = convert(yolo, "train")
    assert file.is_relative_to(cache_root()) and file.is_file()


def test_an_unreadable_image_is_reported_by_the_check_of_the_images(yolo):
    (yolo.parent / "images" / "train" / "b.png").write_bytes(b"broken")
    file, images = convert(yolo, "train")
    with pytest.raises(ValueError, match=r"1 of 2 images cannot be used: .*b.png: not a readable"):
        CocoDataset(file, images)
    assert len(CocoDataset(file, images, skip_broken=True)) == 1


def test_other_formats_can_be_joined_with_jsons(yolo, tiny_coco):
    tiny = tiny_coco()
    files, folders = as_coco([yolo, tiny.ann_file], [tiny.image_dir], "train")
    dataset = CocoDataset(files, folders)
    assert len(dataset) == 8
    assert dataset.metainfo["classes"] == ("cat", "dog", "bird")
    with pytest.raises(ValueError, match=r"--train-images is for COCO jsons only: got 1 folders"):
        as_coco(yolo, tiny.image_dir, "train")


def test_a_folder_of_voc_or_yolo_is_recognised(yolo, tmp_path):
    assert convert(tmp_path, "train") == convert(yolo, "train")
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (voc / folder).mkdir(parents=True)
    (voc / "Annotations" / "a.xml").write_text(
        "<annotation><object><name>cat</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>11</xmax>"
        "<ymax>12</ymax></bndbox></object></annotation>"
    )
    Image.new("RGB", (20, 20)).save(voc / "JPEGImages" / "a.jpg")
    for name in ("train", "trainval"):
        (voc / "ImageSets" / "Main" / f"{name}.txt").write_text("a\n")
    file, images = convert(voc, "train")
    assert file == voc / "train.coco.json"
    assert CocoDataset(file, images)[0][1]["boxes"].tolist() == [[1, 2, 11, 12]]
    listed, _ = as_coco(voc / "ImageSets" / "Main" / "trainval.txt", None, "train")
    assert listed == [voc / "trainval.coco.json"]
    with pytest.raises(ValueError, match=r"neither Pascal VOC .* Did you mean .*/VOC2012\?"):
        convert(voc.parent, "train")
    json_of_another_name = (tmp_path / "instances.txt", tmp_path)
    assert as_coco(*json_of_another_name, "train") == json_of_another_name
    with pytest.raises(FileNotFoundError, match=r"absent.yaml: no such file or folder"):
        as_coco("absent.yaml", None, "train")
