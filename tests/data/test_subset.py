"""Which classes and images a subset has, and the files that it is written to."""

import errno
import hashlib
import json
import random
from pathlib import Path

import pytest

from det_losses.data import subset
from det_losses.data.coco import CocoDataset
from det_losses.data.subset import (
    make_subset,
    match_categories,
    select_categories,
    select_images,
)
from det_losses.errors import ExistingFileError
from det_losses.files import write_json


def made(count=50, classes=("a", "b", "c")):
    """Image i (ids 1, 3, 5, ...) has one box of class i % 3 (ids 10, 20, 30)."""
    images = [{"id": 2 * i + 1} for i in range(count)]
    annotations = [
        {"id": i + 1, "image_id": 2 * i + 1, "category_id": 10 * (i % 3 + 1), "iscrowd": 0}
        for i in range(count)
    ]
    categories = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_classes_keep_the_given_order_and_official_ids():
    assert select_categories(made(), ["c", "a"], "x.json") == [(30, "c"), (10, "a")]
    assert select_categories(made(), None, "x.json") == [(10, "a"), (20, "b"), (30, "c")]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("persn", "Did you mean 'person'"), ("Person", "Did you mean 'person'"), ("zebra", "The cl")],
)
def test_unknown_class_suggests_and_lists(name, hint):
    data = made(classes=("person", "car", "dog"))
    message = f"x.json: no class '{name}'. {hint}.*classes are car, dog, person"
    message = message if hint != "The cl" else f"x.json: no class '{name}'. The classes are car"
    with pytest.raises(ValueError, match=message):
        select_categories(data, [name], "x.json")


def test_labels_are_matched_by_name():
    data = made()  # a 10, b 20, c 30
    assert match_categories(data, ["c", "a", "b"], None, "x.json") == [
        (30, "c"),
        (10, "a"),
        (20, "b"),
    ]
    # what the json lacks gets the ids after its last one
    labels = ["d", "c", "b", "e", "a"]
    found = match_categories(data, labels, None, "x.json")
    assert found == [(31, "d"), (30, "c"), (20, "b"), (32, "e"), (10, "a")]


def test_labels_that_do_not_cover_the_boxes_are_refused_unless_classes_are_chosen():
    data = made()
    message = (
        r"different classes, only in x.json: b, c; only in the training data: my dog. To use the "
        r"common classes only, add --classes a; images without them are kept"
    )
    with pytest.raises(ValueError, match=message):
        match_categories(data, ["a", "my dog"], None, "x.json")
    assert match_categories(data, ["a"], ["a"], "x.json") == [(10, "a")]
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] == 10]
    assert match_categories(data, ["a"], None, "x.json") == [(10, "a")]  # b and c are unused
    with pytest.raises(ValueError, match=r"only in x\.json: a; only in the training data: A"):
        match_categories(data, ["A"], None, "x.json")


def test_class_named_twice():
    with pytest.raises(ValueError, match="classes contains 'a' twice"):
        select_categories(made(), ["a", "b", "a"], "x.json")


def test_no_class_at_all():
    with pytest.raises(ValueError, match="classes is empty"):
        select_categories(made(), [], "x.json")


@pytest.mark.parametrize("classes", ["a", [1]])
def test_classes_must_be_names(classes):
    with pytest.raises(TypeError, match="classes must be a list of class names"):
        select_categories(made(), classes, "x.json")


def test_choice_ignores_the_order_in_the_file():
    data, shuffled = made(), made()
    random.Random(1).shuffle(shuffled["images"])
    random.Random(2).shuffle(shuffled["annotations"])
    chosen = select_images(data, num_images=10, seed=4)
    assert chosen == select_images(shuffled, num_images=10, seed=4) == sorted(set(chosen))
    assert chosen != select_images(data, num_images=10, seed=5)


def test_the_selection_is_spread_over_the_images():
    # every image is equally likely: over 200 seeds, each is among 10 of 50 about 40 times;
    # 6 standard deviations of the binomial (200, 0.2) are 34
    counts = dict.fromkeys((image["id"] for image in made()["images"]), 0)
    for seed in range(200):
        for image_id in select_images(made(), num_images=10, seed=seed):
            counts[image_id] += 1
    assert min(counts.values()) > 6 and max(counts.values()) < 74


def test_smaller_subsets_are_part_of_larger_ones():
    data = made()
    small, large = (set(select_images(data, num_images=n, seed=3)) for n in (10, 30))
    assert small < large


def test_the_selection_is_the_same_on_all_machines():
    # the rule: the images with the smallest sha256 of "seed:id", whatever the Python version
    ids = [1, 3, 5, 7, 9]
    expected = sorted(sorted(ids, key=lambda i: hashlib.sha256(b"0:%d" % i).hexdigest())[:2])
    assert select_images(made(5), num_images=2, seed=0) == expected


def test_candidates_by_class_and_exclusion():
    data = made(6)  # ids 1 3 5 7 9 11 with classes 10 20 30 10 20 30
    assert select_images(data, [10]) == [1, 7]
    assert select_images(data, [10], keep_negatives=True) == [1, 3, 5, 7, 9, 11]
    assert select_images(data, [10], exclude=[7]) == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_images=7), "x.json: 7 images requested, but there are 6 images. Use fewer"),
        (dict(num_images=3, category_ids=[10]), "there are 2 images with a box of the chosen cl"),
        (dict(category_ids=[99]), "x.json: there are 0 images with a box of the chosen classes."),
        (dict(num_images=6, exclude=[1]), "there are 5 images outside the other split"),
        (dict(num_images=0), "num_images must be at least 1, or None for all; got 0"),
    ],
)
def test_too_few_images(options, message):
    with pytest.raises(ValueError, match=message):
        select_images(made(6), source="x.json", **options)


def test_dataset_uses_this_choice(tiny_coco):
    paths = tiny_coco()
    dataset = CocoDataset(*paths, classes=["cat", "bird"], num_images=2, subset_seed=6)
    assert len(dataset) == 2
    # images with a box of cat 3 or bird 18 that is not a crowd: 8, 11 and 33
    assert set(dataset.image_ids) < {8, 11, 33}
    with pytest.raises(ValueError, match=r"4 images requested, but there are 3 images with"):
        CocoDataset(*paths, classes=["cat", "bird"], num_images=4)


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


def test_nothing_is_overwritten_by_default(tiny_coco, tmp_path):
    ann_file = tiny_coco().ann_file
    out = tmp_path / "out"
    out.mkdir()
    (out / "val.json").write_text("mine")
    with pytest.raises(ExistingFileError, match=r"out already contains val\.json.*overwriting"):
        make_subset(out, ann_file, num_val=2)
    assert [p.name for p in out.iterdir()] == ["val.json"]
    make_subset(out, ann_file, num_val=2, overwrite=True)
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "train.json", "val.json"]
    assert len(read(out, "val")["images"]) == 2


def test_a_part_of_the_files_is_removed_on_a_full_disk(tiny_coco, tmp_path, monkeypatch):
    ann_file, out = tiny_coco().ann_file, tmp_path / "out"

    def full(path, *args, **kwargs):
        if path.name == "val.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_json(path, *args, **kwargs)

    monkeypatch.setattr(subset, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        make_subset(out, ann_file, num_val=2)
    assert list(out.iterdir()) == []
    monkeypatch.undo()
    make_subset(out, ann_file, num_val=2)


def test_nothing_is_written_on_an_error(tiny_coco, tmp_path):
    with pytest.raises(ValueError, match=r"7 images requested, but there are 6 images"):
        make_subset(tmp_path / "out", tiny_coco().ann_file, num_val=7)
    assert not (tmp_path / "out").exists()


def test_split_needs_a_number(tiny_coco, tmp_path):
    with pytest.raises(ValueError, match=r"num_val is required to split .* into train and val"):
        make_subset(tmp_path / "out", tiny_coco().ann_file)


def test_split_with_too_few_left(tiny_coco, tmp_path):
    with pytest.raises(ValueError, match="5 images requested, but there are 4 images outside the"):
        make_subset(tmp_path / "out", tiny_coco().ann_file, num_val=2, num_train=5)


def test_files_with_other_ids_keep_them(tiny_coco, tmp_path):
    def change(coco):
        coco["categories"][1]["id"] = 4
        for annotation in coco["annotations"]:
            annotation["category_id"] = {3: 4}.get(annotation["category_id"], 7)

    paths = tiny_coco("a").ann_file, tiny_coco("b", change=change).ann_file
    manifest = make_subset(tmp_path / "out", *paths, classes=["cat", "dog"])
    categories = [read(tmp_path / "out", name)["categories"] for name in ("train", "val")]
    assert [[c["id"] for c in each] for each in categories] == [[3, 7], [4, 7]]
    # cats are on the images 8 and 11, three of them
    assert manifest["val"]["per_class"]["cat"] == manifest["train"]["per_class"]["cat"]
    assert manifest["val"]["per_class"]["cat"]["boxes"] == 3


def test_files_with_other_classes_are_refused_with_advice_that_works(tiny_coco, tmp_path):
    def change(coco):
        coco["categories"][1]["name"] = "lion"

    paths = tiny_coco("a").ann_file, tiny_coco("b", change=change).ann_file
    with pytest.raises(ValueError, match=r"differ in their classes, .*\['cat', 'lion'\]") as error:
        make_subset(tmp_path / "out", *paths)
    assert "Add --classes dog bird, and --keep-negatives" in str(error.value)
    make_subset(tmp_path / "out", *paths, classes=["dog", "bird"], keep_negatives=True)
    assert ids(read(tmp_path / "out", "val")) == [5, 8, 11, 20, 33, 42]
