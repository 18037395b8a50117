import json
import os
import signal

import pytest
import torch
from mmengine.config import Config

from det_losses import cli
from det_losses.cli.train import main


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_run_leaves_config_metrics_and_checkpoint(tiny_config, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = [str(tiny_config), "--work-dir", str(run), "--seed", "3"]
    giou = ["--cfg-options", "model.loss_bbox.type=GIoULoss"]
    assert main([*arguments, "--tensorboard", *giou]) == 0
    record = json.loads((run / "metrics.json").read_text())
    assert (record["status"], record["epoch"], record["seed"]) == ("done", 2, 3)
    assert record["losses"]["loss_bbox"].startswith("GIoULoss(")
    assert set(record["metrics"]) >= {"AP", "AP50", "AP75", "AP80", "AP90", "AP/cat"}
    stored = Config.fromfile(run / "config.py")
    assert stored.randomness.seed == 3
    assert "Tensorboard" not in stored.pretty_text  # with or without it, it is the same run
    assert list(run.rglob("events.out.tfevents*"))
    # two epochs of two steps reach no AP, and the log says why
    out = capsys.readouterr().out
    assert "AP 0.0: Training had only 4 steps, and" in out
    # what the plan says is not repeated, but in the log; the table has the other metrics
    assert out.startswith("Plan\n") and "Active losses" not in out
    assert "Active losses" in next(run.glob("*/*.log")).read_text()
    assert "    AP: 0.0  data_time: " in out
    with pytest.raises(SystemExit):  # again: it is finished
        main(arguments)


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    tiny_config, once, tmp_path, capsys
):
    config = str(tiny_config)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([config, "--work-dir", str(whole)]) == 0
    once("stop_self")
    assert main([config, "--work-dir", str(parts)]) == 130
    assert f"interrupted; resume with --work-dir {parts} --resume" in capsys.readouterr().err
    assert main([config, "--work-dir", str(parts), "--resume"]) == 0
    assert json.loads((parts / "metrics.json").read_text())["status"] == "done"
    expected, got = (weights(folder / "epoch_2.pth") for folder in (whole, parts))
    assert all(torch.equal(expected[key], got[key]) for key in expected)


def test_a_failure_in_training_is_in_the_log_with_its_traceback(
    tiny_config, once, tmp_path, capsys
):
    once("fail")
    run = tmp_path / "run"
    with pytest.raises(SystemExit, match="1"):
        main([str(tiny_config), "--work-dir", str(run)])
    (log,) = run.glob("*/*.log")
    assert f"training failed, log: {log}\n" in capsys.readouterr().out
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert "RuntimeError: broken on purpose" in text


def test_a_user_error_in_training_has_no_traceback(tiny_config, tmp_path, capsys):
    run = tmp_path / "run"
    endless = "loss_bbox=L1Loss(loss_weight=1e38)"  # more than float32 holds once it is summed
    with pytest.raises(SystemExit, match="1"):
        main([str(tiny_config), "--work-dir", str(run), "--loss", endless])
    out = capsys.readouterr().out
    assert "Traceback" not in out
    assert "\nNonFiniteError: " in out and "iteration 1, image ids" in out


@pytest.mark.parametrize(
    "place",
    ["engine.experiment.load_experiment", "engine.run.claim_work_dir", "engine.build_runner"],
)
def test_an_interrupt_before_training_is_one_line(
    tiny_config, tmp_path, monkeypatch, capsys, place
):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"det_losses.{place}", interrupt)
    assert cli.main(["train", str(tiny_config), "--work-dir", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train-ann", "x.json"], "--train-ann requires --train-images"),
        (["--train-ann", "absent.json", "--train-images", "."], "absent.json"),
        (
            ["--cfg-options", "model.loss_bbox.type=FocalLoss"],
            "RetinaNet.loss_bbox takes a box loss",
        ),
        (["--cfg-options", "model.loss_bbox.type=GIuLoss"], "Did you mean 'GIoULoss'"),
        (["--cfg-options", "model.num_classes=5"], "model.num_classes is 5"),
        (["--cfg-options", "train_dataloader.dataset.classes=[cta]"], "no class 'cta'"),
        (["--cfg-options", "train_cfg.max_epoch=5"], "'max_epoch'"),
        (["--cfg-options", "optim_wrapper.optimizer.lrr=5"], "'lrr'"),
        (["--cfg-options", "optim_wrapper.optimizer.type=SDG"], "Did you mean 'SGD'"),
        (["--cfg-options", "model.type=RetinaNett"], "Did you mean 'RetinaNet'"),
        (["--cfg-options", "train_dataloader.dataset.num_images=six"], "got 'six'"),
        (["--loss", "loss_bbox=L1Loss(loss_weight=-1)"], "loss_weight must be at least 0"),
        (["--resume", "absent.pth"], "absent.pth: no such checkpoint"),
        (["--device", "tpu"], "--device tpu: expected cpu, cuda or cuda:N"),
        (["--launcher", "pytorch", "--device", "cuda:0"], "select GPUs with the variable CUDA_"),
        (["--resume", __file__], "test_train.py is not a checkpoint"),
        (["--work-dir", __file__], "test_train.py: is a file"),
    ],
)
def test_user_errors_are_one_line_before_training(
    tiny_config, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as info:
        main([str(tiny_config), "--work-dir", str(tmp_path / "run"), *options])
    assert info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_config_is_written_is_one_line(
    tiny_config, tmp_path, monkeypatch, capsys, number
):
    monkeypatch.setattr("det_losses.engine.run.write_text", lambda *_: signal.raise_signal(number))
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "run"), "--no-plan"]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("interrupted; resume with --work-dir")


def test_a_dry_run_prints_the_plan_and_leaves_nothing(tiny_config, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr("det_losses.engine.device._given", None)  # restored for other tests
    assert main([str(tiny_config), "--work-dir", str(run), "--dry-run", "--device", "cpu"]) == 0
    *remarks, plan = capsys.readouterr().out.partition("Plan\n")
    assert "data: 6 of 6 validation images are also training images" in remarks[0]
    rows = plan.splitlines()
    found = dict(row.split(maxsplit=1) for row in rows if row[2] != " ")
    assert found["images"] == "6 for training, 6 for evaluation"
    assert found["training"] == "2 epochs (4 steps), batch size 3; evaluated every epoch"
    assert found["learning"] == "rate  0.01 (SGD)"
    assert found["loss_bbox"].startswith("L1Loss, loss_weight 1: torchvision")
    assert {"classes", "model", "device", "time", "disk"} <= found.keys()
    assert not run.exists()


def test_own_data_needs_no_edited_file(tiny_config, tiny_coco, tmp_path):
    def one_class(coco):
        coco["categories"] = [c for c in coco["categories"] if c["name"] == "cat"]
        coco["annotations"] = [a for a in coco["annotations"] if a["category_id"] == 3]

    ann_file, image_dir = tiny_coco("mine", change=one_class)
    options = [f"--{split}-{what}" for split in ("train", "val") for what in ("ann", "images")]
    own = [part for pair in zip(options, (ann_file, image_dir) * 2, strict=True) for part in pair]
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "run"), *own]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert [key for key in metrics if key.startswith("AP/")] == ["AP/cat"]


def test_broken_images_stop_training_before_it_starts_or_are_left_out(
    tiny_config, tiny_coco, tmp_path, capsys
):
    # the files of the first set, and a second one with a broken image, as one
    first, second = (tiny_coco(name) for name in ("first", "second"))
    os.truncate(f"{second.image_dir}/000011.png", 100)
    own = ["--train-ann", first.ann_file, second.ann_file]
    own += ["--train-images", first.image_dir, second.image_dir]
    run = tmp_path / "run"
    arguments = [str(tiny_config), "--work-dir", str(run), *own]
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    (error,) = capsys.readouterr().err.splitlines()
    assert "1 of 12 images cannot be used: " in error and "second/images/000011.png: " in error
    assert not run.exists()
    assert main([*arguments, "--skip-broken"]) == 0
    assert "1 of 12 images cannot be read and is left out: second/images/000011.png" in (
        capsys.readouterr().out
    )
    assert json.loads((run / "metrics.json").read_text())["status"] == "done"


def data_options(train, val):
    return [
        *("--train-ann", train.ann_file, "--train-images", train.image_dir),
        *("--val-ann", val.ann_file, "--val-images", val.image_dir),
    ]


def refused(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_the_advice_for_different_classes_works_and_keeps_negatives(
    tiny_config, tiny_coco, tmp_path, capsys
):
    """Val has other ids, lacks a class and has another one."""

    def change(coco):
        ids = {3: 1, 7: 2}  # birds become fish
        coco["categories"] = [
            dict(id=1, name="cat"),
            dict(id=2, name="dog"),
            dict(id=3, name="fish"),
        ]
        for box in coco["annotations"]:
            box["category_id"] = ids.get(box["category_id"], 3)

    run = tmp_path / "run"
    data = data_options(tiny_coco("a"), tiny_coco("b", change=change))
    arguments = [str(tiny_config), "--work-dir", str(run), *data]
    error = refused(arguments, capsys)
    assert "only in" in error and "fish; only in the training data: bird" in error
    advice = error[error.index("--classes") :].partition(";")[0].split()
    assert advice == ["--classes", "cat", "dog"]
    assert main([*arguments, *advice, "--cfg-options", "train_cfg.max_epochs=1"]) == 0
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert {key for key in metrics if "/" in key} == {"AP/cat", "AP/dog"}
    # all six images, also those without a cat or dog
    assert "Evaluated 6 images" in capsys.readouterr().out
    cfg = Config.fromfile(run / "config.py")
    assert cfg.train_dataloader.dataset.keep_negatives and cfg.val_dataloader.dataset.keep_negatives


def test_what_the_data_drops_is_told_once_and_classes_are_matched_by_name(
    tiny_config, tiny_coco, tmp_path, capsys
):
    def other_ids(coco):
        ids = {3: 20, 7: 1, 18: 2}
        for each in coco["categories"]:
            each["id"] = ids[each["id"]]
        for each in coco["annotations"]:
            each["category_id"] = ids[each["category_id"]]
        coco["categories"][0]["name"] = "bird\x1b[31m"

    def outside(coco):
        coco["annotations"][0]["bbox"] = [500, 0, 5, 5]
        coco["categories"][0]["name"] = "bird\x1b[31m"

    run = tmp_path / "run"
    data = data_options(tiny_coco("a", change=outside), tiny_coco("b", change=other_ids))
    options = ["--cfg-options", "train_cfg.max_epochs=1"]
    assert main([str(tiny_config), "--work-dir", str(run), *data, *options]) == 0
    text = capsys.readouterr().out
    told = [line.partition("data: ")[2] for line in text.splitlines() if "data: " in line]
    crowds = "2 of 9 boxes are crowds"
    expected = (
        "instances.json: 1 of 9 boxes is outside its image and is left out",
        f"instances.json: {crowds} and are left out",
        f"instances.json: {crowds}: detections on them are ignored",
        "6 of 6 validation images are also training images",
    )
    assert len(told) == len(expected)
    assert all(note.startswith(start) for note, start in zip(told, expected, strict=True))
    # an escape sequence of a class name is shown, not executed
    assert "\x1b[31m" not in text and "bird\\x1b[31m" in text
    assert "AP/bird\x1b[31m" in json.loads((run / "metrics.json").read_text())["metrics"]


def test_more_objects_than_evaluated_detections_are_told_before_training(
    tiny_config, tiny_coco, tmp_path, capsys
):
    def crowded(coco):
        first = coco["annotations"][0]
        for number in range(11):  # with the one of the image, 12 of its class
            coco["annotations"].append(dict(first, id=100 + number, bbox=[8 * number, 4, 6, 9]))

    data = data_options(tiny_coco("a"), tiny_coco("b", change=crowded))
    options = ["--cfg-options", "train_cfg.max_epochs=1", "val_evaluator.max_dets=11"]
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "run"), *data, *options]) == 0
    told = capsys.readouterr().out.partition("epoch 1")[0]
    assert "1 of 6 evaluated images has more than 11 objects of a class, up to 12" in told
    assert "val_evaluator.max_dets=12 evaluates more" in told


def test_data_that_cannot_be_used_is_refused_before_training(
    tiny_config, tiny_coco, tmp_path, capsys
):
    good = tiny_coco("good")
    empty = tiny_coco("empty", change=lambda coco: coco["annotations"].clear())

    def outside(coco):
        coco["images"][0]["file_name"] = f"../../good/images/{coco['images'][0]['file_name']}"

    linked = tiny_coco("linked", change=outside)
    run = ["--work-dir", str(tmp_path / "run")]
    for data, message in (
        ((empty, good), "empty/instances.json: no box to train with on 6 images"),
        ((good, empty), "empty/instances.json: no box to evaluate with on 6 images"),
        ((good, linked), "1 of 6 images is outside this folder"),
    ):
        assert message in refused([str(tiny_config), *run, *data_options(*data)], capsys)
    assert not (tmp_path / "run").exists()
    options = ["--allow-outside", "--cfg-options", "train_cfg.max_epochs=1"]
    assert main([str(tiny_config), *run, *data_options(good, linked), *options]) == 0
