import errno
import hashlib
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from det_losses.data.coco_json import read_coco_json
from det_losses.data.shapes import ShapesDataset, make_shapes

SMALL = dict(num_train=12, num_val=6, image_size=64)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("shapes") / "set", **SMALL)


def contents(root):
    """Digest of the pixels of every image, and of the boxes."""
    pixels = {p.name: np.asarray(Image.open(p)).tobytes() for p in (root / "images").iterdir()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in pixels.items()}
    return digests, [(root / f"{split}.json").read_text() for split in ("train", "val")]


def test_samples_for_training(root):
    dataset = ShapesDataset(root, **SMALL)
    assert len(dataset) == 12
    assert dataset.metainfo["classes"] == (
        "ellipse",
        "rectangle",
        "triangle",
        "star",
        "ring",
        "cross",
    )
    for image, target in (dataset[i] for i in range(12)):
        assert image.shape == (3, 64, 64) and image.dtype == torch.uint8
        assert len(target["boxes"]) <= 6
        assert (target["boxes"] >= 0).all() and (target["boxes"] <= 64).all()


def test_val_for_evaluation(root):
    train = ShapesDataset(root, **SMALL)
    val = ShapesDataset(root, split="val", test_mode=True, classes=["ring", "star"], **SMALL)
    assert val.metainfo["classes"] == ("ring", "star")
    assert {a["category_id"] for _, t in val for a in t["coco"]["annotations"]} <= {4, 5}
    assert not set(val.image_ids) & set(train.image_ids)


def test_json_is_sound_coco(root):
    for split in ("train", "val"):
        coco = read_coco_json(root / f"{split}.json")
        for annotation in coco["annotations"]:
            _, _, width, height = annotation["bbox"]
            # a mask fills its box at most
            assert 0 < annotation["area"] <= width * height
            assert annotation["iscrowd"] == 0


def test_same_seed_same_pixels_and_boxes(root, tmp_path):
    assert contents(make_shapes(tmp_path / "again", **SMALL)) == contents(root)


def test_another_seed_another_set(root, tmp_path):
    other = contents(make_shapes(tmp_path / "other", **SMALL, seed=1))
    assert not set(other[0].values()) & set(contents(root)[0].values())


def test_train_and_val_differ(root):
    digests = contents(root)[0]
    assert len(set(digests.values())) == len(digests) == 18


def test_a_larger_dataset_starts_with_the_images_of_a_smaller_one(root, tmp_path):
    larger = contents(make_shapes(tmp_path / "larger", **{**SMALL, "num_train": 20}))[0]
    assert contents(root)[0].items() <= larger.items()


def test_a_second_call_does_not_generate_again(root):
    before = (root / "train.json").stat().st_mtime_ns
    assert make_shapes(root, **SMALL) == root
    assert (root / "train.json").stat().st_mtime_ns == before


def test_an_empty_folder_is_used_and_no_temporary_folder_remains(tmp_path):
    (tmp_path / "set").mkdir()
    make_shapes(tmp_path / "set", **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == [
        "images",
        "meta.json",
        "train.json",
        "val.json",
    ]


def test_several_processes_can_generate_it_concurrently(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=make_shapes, args=(tmp_path / "set",), kwargs=SMALL)
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_dataset_with_other_settings_is_an_error(root):
    message = r"set: generated with image_size=64, seed=0, not image_size=96, seed=2\."
    with pytest.raises(ValueError, match=message + " The train and val dataset .* Choose another"):
        make_shapes(root, **{**SMALL, "image_size": 96}, seed=2)


def test_a_dataset_without_a_level_is_the_full_one(root, tmp_path):
    shutil.copytree(root, tmp_path / "set")
    meta = json.loads((root / "meta.json").read_text())
    assert meta.pop("level") == "full"
    (tmp_path / "set" / "meta.json").write_text(json.dumps(meta))
    assert make_shapes(tmp_path / "set", **SMALL) == tmp_path / "set"
    with pytest.raises(ValueError, match="generated with level=full, not level=easy"):
        make_shapes(tmp_path / "set", **SMALL, level="easy")


def test_the_easy_level_has_three_classes(tmp_path):
    dataset = ShapesDataset(tmp_path / "set", num_train=4, num_val=1, image_size=32, level="easy")
    assert dataset.metainfo["classes"] == ("ellipse", "rectangle", "triangle")


def test_a_dataset_of_an_older_version_is_an_error(root, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    meta = json.loads((root / "meta.json").read_text())
    (old / "meta.json").write_text(json.dumps({**meta, "version": 0}))
    with pytest.raises(ValueError, match=r"old: generated with version=0, not version="):
        make_shapes(old, **SMALL)


def test_an_incomplete_set_is_refused(tmp_path):
    made = make_shapes(tmp_path / "set", **SMALL)
    (made / "images" / "train_000003.png").unlink()
    (made / "val.json").unlink()
    message = r"set: incomplete, 2 files missing, for example train_000003\.png\. Choose"
    with pytest.raises(ValueError, match=message):
        make_shapes(made, **SMALL)


@pytest.mark.parametrize("name", ["meta.json", "thesis.txt"])
def test_a_folder_with_other_files_is_not_changed(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="not a dataset of built-in shapes, or damaged"):
        make_shapes(tmp_path, **SMALL)
    assert [p.name for p in Path(tmp_path).iterdir()] == [name]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(num_train=0), "num_train must be from 1 to 1000000, got 0"),
        (dict(num_val=-1), "num_val must be from 1"),
        (dict(image_size=16), "image_size must be from 32"),
        (dict(seed=-1), "seed must be from 0"),
        (dict(level="hard"), r"level must be one of \['full', 'easy'\], got 'hard'"),
    ],
)
def test_settings_out_of_range(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_shapes(tmp_path / "set", **settings)
    assert not (tmp_path / "set").exists()


def test_split_must_be_train_or_val(root):
    with pytest.raises(ValueError, match="split must be 'train' or 'val', got 'test'"):
        ShapesDataset(root, split="test", **SMALL)


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_setting(tmp_path):
    (tmp_path / "data").symlink_to(tmp_path / "not_mounted")
    with pytest.raises(
        ValueError, match=r"data_root .*/data/set: cannot be made in .*/data \(File"
    ):
        make_shapes(tmp_path / "data" / "set", **SMALL)


def test_an_image_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """OpenCV itself would return False, without a reason."""

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/images/train_000000\.png'"):
        make_shapes(tmp_path / "set", **SMALL)
    assert list(tmp_path.iterdir()) == []
