import hashlib
import json
from pathlib import Path

import pytest

from det_losses.data import CocoDataset, make_subset


def read(folder, name):
    return json.loads((Path(folder) / f"{name}.json").read_text())


def ids(coco):
    return [image["id"] for image in coco["images"]]


@pytest.fixture
def two(coco_subset, tmp_path):
    """A subset of the two real files."""
    sources = [coco_subset / f"instances_{split}.json" for split in ("train", "val")]
    options = dict(classes=["dog", "cat", "person"], num_train=50, num_val=20, seed=3)
    return sources, options, tmp_path / "out", make_subset(tmp_path / "out", *sources, **options)


def test_takes_the_images_that_the_dataset_takes(two, coco_subset):
    sources, options, out, _ = two
    for name, source, count in zip(("train", "val"), sources, (50, 20), strict=True):
        common = dict(image_dir=coco_subset / "images", classes=options["classes"])
        direct = CocoDataset(source, **common, num_images=count, subset_seed=3, test_mode=True)
        written = CocoDataset(out / f"{name}.json", **common, test_mode=True)
        assert written.image_ids == direct.image_ids and len(written) == count
        assert written.metainfo == direct.metainfo
        assert written[0][1]["coco"] == direct[0][1]["coco"]


def test_files_share_categories_with_official_ids(two):
    out = two[2]
    # COCO's official ids: person 1, cat 17, dog 18
    expected = [(1, "person"), (17, "cat"), (18, "dog")]
    for name in ("train", "val"):
        coco = read(out, name)
        assert sorted((c["id"], c["name"]) for c in coco["categories"]) == expected
        assert {a["category_id"] for a in coco["annotations"]} <= {1, 17, 18}
        assert {a["image_id"] for a in coco["annotations"]} == set(ids(coco))


def test_manifest_says_what_was_chosen(two):
    sources, _, out, manifest = two
    assert manifest == read(out, "manifest")
    for name, source in zip(("train", "val"), sources, strict=True):
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        assert manifest["sources"][name] == {"path": str(source), "sha256": digest}
        coco = read(out, name)
        assert manifest[name]["image_ids"] == ids(coco)
        dogs = [a for a in coco["annotations"] if a["category_id"] == 18]
        boxes = [a for a in dogs if not a["iscrowd"]]
        assert manifest[name]["per_class"]["dog"] == {
            "images": len({a["image_id"] for a in boxes}),
            "boxes": len(boxes),
            "crowds": len(dogs) - len(boxes),
        }
        assert manifest[name]["num_images"] == len(ids(coco))
        assert manifest[name]["num_boxes"] == sum(not a["iscrowd"] for a in coco["annotations"])
    assert (manifest["seed"], manifest["category_ids"]) == (3, [18, 17, 1])


def test_one_file_is_split_without_overlap(tiny_coco, tmp_path):
    ann_file = tiny_coco().ann_file
    make_subset(tmp_path / "out", ann_file, num_val=2)
    train, val = (ids(read(tmp_path / "out", name)) for name in ("train", "val"))
    assert len(val) == 2 and sorted(train + val) == [5, 8, 11, 20, 33, 42]


def test_a_copy_of_the_file_is_split_too(tiny_coco, tmp_path):
    ann_file = Path(tiny_coco().ann_file)
    copy = tmp_path / "copy.json"
    copy.write_bytes(ann_file.read_bytes())
    make_subset(tmp_path / "out", ann_file, copy, num_val=3, num_train=2)
    train, val = (ids(read(tmp_path / "out", name)) for name in ("train", "val"))
    assert (len(train), len(val)) == (2, 3) and not set(train) & set(val)


def test_negatives_stay_in_val_only(tiny_coco, tmp_path):
    paths = [tiny_coco("a").ann_file, tiny_coco("b", change=lambda c: c.update(info=1)).ann_file]
    make_subset(tmp_path / "out", *paths, classes=["dog"], keep_negatives=True)
    # dog: boxes in images 5 and 11, a crowd in 33
    assert ids(read(tmp_path / "out", "train")) == [5, 11]
    assert ids(read(tmp_path / "out", "val")) == [5, 8, 11, 20, 33, 42]


def test_everything_else_of_the_source_is_kept(tiny_coco, tmp_path):
    def change(coco):
        coco["licenses"] = [{"id": 4}]
        coco["annotations"][0]["segmentation"] = [[1, 2, 3, 4, 5, 6]]

    make_subset(tmp_path / "out", tiny_coco(change=change).ann_file, num_val=1, num_train=4)
    train, val = read(tmp_path / "out", "train"), read(tmp_path / "out", "val")
    assert train["licenses"] == val["licenses"] == [{"id": 4}]
    masks = [a["segmentation"] for c in (train, val) for a in c["annotations"] if a["id"] == 1]
    assert masks in ([[[1, 2, 3, 4, 5, 6]]], [])
    assert all("area" in a for a in train["annotations"])


def test_nothing_is_overwritten_unasked(tiny_coco, tmp_path):
    ann_file = tiny_coco().ann_file
    out = tmp_path / "out"
    out.mkdir()
    (out / "val.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"out: val\.json exist already.*overwriting"):
        make_subset(out, ann_file, num_val=2)
    assert [p.name for p in out.iterdir()] == ["val.json"]
    make_subset(out, ann_file, num_val=2, overwrite=True)
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "train.json", "val.json"]
    assert len(read(out, "val")["images"]) == 2


def test_nothing_is_written_on_an_error(tiny_coco, tmp_path):
    with pytest.raises(ValueError, match=r"7 images asked for, but there are 6 images"):
        make_subset(tmp_path / "out", tiny_coco().ann_file, num_val=7)
    assert not (tmp_path / "out").exists()


def test_split_needs_a_number(tiny_coco, tmp_path):
    with pytest.raises(ValueError, match=r"num_val is needed to split .* into train and val"):
        make_subset(tmp_path / "out", tiny_coco().ann_file)


def test_split_with_too_few_left(tiny_coco, tmp_path):
    with pytest.raises(ValueError, match="5 images asked for, but there are 4 images outside the"):
        make_subset(tmp_path / "out", tiny_coco().ann_file, num_val=2, num_train=5)


def test_files_with_other_ids_for_a_class_are_refused(tiny_coco, tmp_path):
    def change(coco):
        coco["categories"][1]["id"] = 4
        for annotation in coco["annotations"]:
            annotation["category_id"] = {3: 4}.get(annotation["category_id"], 7)

    paths = tiny_coco("a").ann_file, tiny_coco("b", change=change).ann_file
    with pytest.raises(ValueError, match=r"differ in their categories .*\(3, 'cat'\), \(4, 'cat'"):
        make_subset(tmp_path / "out", *paths)
    make_subset(tmp_path / "out", *paths, classes=["dog"])
