"""The way from real COCO images to numbers, on a small fixed part of the subset."""

import json

from det_losses.cli import main


def test_train_and_test_on_real_images(coco_subset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source, images = str(coco_subset / "instances_train.json"), str(coco_subset / "images")
    subset = [
        "--train-ann",
        source,
        "--classes",
        "person",
        "dog",
        "--num-train",
        "8",
        "--num-val",
        "4",
    ]
    assert main(["make_subset", "part", *subset]) == 0
    data = ["--val-ann", "part/val.json", "--val-images", images]
    quick = ["model.num_convs=1", "train_cfg.max_epochs=1", "train_dataloader.batch_size=4"]
    quick += [f"{split}_dataloader.{key}" for split in ("train", "val") for key in WORKERLESS]
    options = ["--cfg-options", *quick]
    train = ["--train-ann", "part/train.json", "--train-images", images, "--work-dir", "run"]
    assert main(["train", "quickstart/retinanet_shapes", *train, *data, *options]) == 0
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["metrics"]["AP"] is not None and "AP/dog" in record["metrics"]
    assert record["losses"].keys() == {"loss_cls", "loss_bbox"}

    capsys.readouterr()
    options[1:] = [o.replace("val_", "test_") for o in quick if not o.startswith("train_")]
    found = ["--out", "found.json", "--work-dir", "tested"]
    config, checkpoint = "run/config.py", "run/epoch_1.pth"
    assert main(["test", config, checkpoint, *data, *found, *options]) == 0
    detections = json.loads((tmp_path / "found.json").read_text())
    val = json.loads((tmp_path / "part" / "val.json").read_text())
    assert {d["image_id"] for d in detections} <= {image["id"] for image in val["images"]}
    # Official ids: person is 1 and dog 18.
    assert {d["category_id"] for d in detections} <= {1, 18}


WORKERLESS = ("num_workers=0", "persistent_workers=False")
