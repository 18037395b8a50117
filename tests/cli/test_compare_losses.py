import json
from dataclasses import asdict

import pytest

from det_losses.cli.compare_losses import main


def statuses(folder):
    runs = json.loads((folder / "results.json").read_text())["runs"]
    return {run["variant"]: run["status"] for run in runs}


def test_an_interrupted_comparison_is_resumed(tiny_config, once, tmp_path, monkeypatch, capsys):
    # With real processes: a run sends SIGTERM to the comparison that waits for it.
    once("stop_comparison")
    monkeypatch.setattr("det_losses.comparison.process._GRACE", 20)  # on a busy machine
    folder = tmp_path / "out"
    command = [str(tiny_config), "--work-dir", str(folder), "--seeds", "0", "--losses", "L1Loss"]
    assert main([*command, "GIoULoss"]) == 130
    assert "interrupted; run the same command again to resume" in capsys.readouterr().out
    assert statuses(folder) == {"L1Loss": "interrupted", "GIoULoss": "pending"}
    log = folder / "runs" / "L1Loss" / "seed_0" / "output.log"
    assert "interrupted; resume with" in log.read_text()  # it ended by itself, it was not killed

    assert main(command) == 0
    assert statuses(folder) == {"L1Loss": "done", "GIoULoss": "pending"}
    assert "resumed epoch: " in log.read_text()

    # Training and validation data are the same file here.
    shared = "6 of 6 validation images are also training images (000005.png, 000008.png, 000011.png"
    assert f"data: {shared}" in capsys.readouterr().out
    meta = json.loads((folder / "results.json").read_text())["meta"]
    assert [note[: len(shared)] for note in meta["notes"]] == [shared]
    assert list(meta["data_notes"]) == ["train", "val", "both"]

    with pytest.raises(SystemExit):
        main([*command, "--cfg-options", "model.num_convs=2"])
    assert "model.num_convs: 1 -> 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--losses", "L1Loss", "FocalLoss"], "RetinaNet.loss_bbox takes a box loss"),
        (["--losses", "L1Loss", "GIuLoss"], "Did you mean 'GIoULoss'"),
        (["--losses", "L1Loss:beta=1"], "parameters go in parentheses: 'L1Loss(beta=1)'"),
        (["--losses", "L1Loss(bta=1)"], "bta"),
        (["--losses", "FocalL1Loss(beta=3)"], "beta"),
        (["--losses", "L1Loss", "L1Loss"], "contains L1Loss twice"),
        (
            ["--losses", "GIoULoss", "GIoULoss(loss_weight=2.5)"],
            "are identical; remove one of them",
        ),
        (["--losses", "L1Loss", "--seeds", "1", "1"], "--seeds contains 1 twice"),
        (
            ["--losses", "L1Loss", "--component", "loss_box"],
            "RetinaNet has the slots loss_cls, los",
        ),
        (
            ["--losses", "L1Loss", "--cfg-options", "randomness.seed=7"],
            "--cfg-options randomness.seed=7: a comparison takes its seeds from --seeds",
        ),
        (["--losses", "L1Loss", "--cfg-options", "train_cfg.max_epochs=0"], "max_epochs"),
        (["--losses", "L1Loss", "--cfg-options", "train_cfg.val_interval=0"], "val_interval"),
        (
            ["--losses", "L1Loss", "--cfg-options", "model.score_thresh=low"],
            "model.score_thresh: must be a number, got 'low'",
        ),
        (
            ["--losses", "L1Loss", "--cfg-options", "val_evaluator.prefix=val"],
            "val_evaluator.prefix='val' renames the metrics",
        ),
        (["--variant", "a:loss_bbox=L1Loss", "b:load_from=x.pth"], "weights 'x.pth': no such"),
        (
            ["--variant", "a:loss_bbox=L1Loss", "b:randomness.seed=7"],
            "changes randomness.seed, but the seeds are those of --seeds",
        ),
        (
            ["--losses", "L1Loss", "--screen", "--cfg-options", "train_cfg.max_epochs=1"],
            "--screen requires a training of at least 2 epochs",
        ),
        (
            ["--losses", "L1Loss", "--cfg-options", "train_cfg.max_epochs=ten"],
            "error: train_cfg.max_epochs: must be a whole number, got 'ten'",
        ),
        (
            ["--losses", "L1Loss", "--variant", "b:optim_wrapper.optimizer.lr=fast"],
            "error: optim_wrapper.optimizer.lr: must be a number, got 'fast'",
        ),
        (
            ["--losses", "L1Loss", "--metric", "mAP"],
            "--metric mAP: no such metric. Did you mean 'AP'",
        ),
        (
            ["--losses", "ciou"],
            "'ciou' is not in the det_losses model registry. Did you mean 'CIoUL",
        ),
        (["--losses", "smooth-l1"], "'smooth-l1' is not in the det_losses model registry. Did you"),
        (["--losses", "L1Loss", "--import", "no_such"], "--import no_such: cannot be imported"),
        (["--losses", "L1Loss", "--device", "cuda:99"], "--device cuda:99: torch finds "),
        (["--losses", "L1Loss", "--until-decided"], "requires at least two variants"),
        (
            ["--losses", "L1Loss", "--until-decided", "--seeds", "0", "1"],
            "--until-decided looks at 3, 5 and 8 seeds; give at least 3",
        ),
        (["--losses", "L1Loss", "--val-ann", "absent.json", "--val-images", "."], "absent.json"),
        (["--losses", "L1Loss", "--folds", "2", "--val-ann", "a.json"], "leave out --val-ann and"),
        (["--losses", "L1Loss", "--fold-key", "video_id"], "--fold-key requires --folds"),
        (["--losses", "L1Loss", "--folds", "7"], "7 folds need at least 7 images, got 6"),
        (["--losses", "L1Loss", "--folds", "1"], "--folds: must be at least 2, got 1"),
        (
            ["--losses", "L1Loss", "--folds", "2", "--fold-key", "video_id"],
            "has no 'video_id' to group it by; it has file_name, height, id, width",
        ),
        (["--losses", "L1Loss", "--cfg-options", "model.num_classes=9"], "model.num_classes is 9"),
        (
            ["--losses", "L1Loss", "--cfg-options", "model.type=ResNetFPN"],
            "ResNetFPN is not a detector",
        ),
    ],
)
def test_options_are_checked_before_the_first_training(
    tiny_config, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as info:
        main([str(tiny_config), "--work-dir", "out", *options])
    assert info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_options_arrive_as_plain_arguments(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = {}

    def fake(cfg, options, command):
        seen.update(asdict(options), cfg=cfg, root=options.root, command=command)
        return [{"status": "done"}, {"status": "failed"}]

    monkeypatch.setattr("det_losses.comparison.comparison.compare", fake)
    options = ["--losses", "A", "B", "--component", "loss_cls", "--cross", "loss_bbox", "C"]
    options += ["--variant", "v:x=1", "--baseline", "B", "--metric", "AP75", "--seeds", "3", "4"]
    options += ["--match-weights", "gradient", "--weights", "0.5", "1", "--jobs", "2"]
    options += ["--budget", "90min", "--screen", "--resamples", "200"]
    options += ["--until-decided", "--within", "0.5", "--fork-at", "0.25"]
    assert main([str(tiny_config), *options, "--cfg-options", "model.num_convs=2"]) == 1
    assert seen.pop("cfg").model.num_convs == 2
    command = seen.pop("command")
    assert command.startswith(f"python -m det_losses compare {tiny_config} --losses A B")
    assert seen["config"] == str(tiny_config)
    assert str(seen.pop("root")) == "work_dirs/tiny_retinanet_loss_cls_loss_bbox"
    given = {
        "losses": ["A", "B"],
        "component": "loss_cls",
        "cross": ["loss_bbox", "C"],
        "variant": ["v:x=1"],
        "baseline": "B",
        "metric": "AP75",
        "match_weights": "gradient",
        "weights": [0.5, 1.0],
        "seeds": [3, 4],
        "jobs": 2,
        "budget": 5400.0,
        "until_decided": True,
        "within": 0.5,
        "screen": True,
        "fork_at": 0.25,
        "resamples": 200,
        "tensorboard": False,
        "dry_run": False,
    }
    assert {name: seen[name] for name in given} == given


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "0"], "must be above 0, got 0"),
        (["--within", "0"], "must be above 0, got 0"),
        (["--fork-at", "1"], "must be below 1, got 1"),
        (["--jobs", "0"], "must be at least 1, got 0"),
        (["--seeds", "-1"], "--seeds: must be from 0 to 4294967295, got -1"),
        (["--seeds", "0", "1.5"], "--seeds: must be a whole number, got '1.5'"),
        (["--resamples", "1"], "--resamples: must be at least 100, got 1"),
    ],
)
def test_a_number_out_of_range_is_refused(capsys, options, message):
    with pytest.raises(SystemExit):
        main(["x", "--losses", "L1Loss", *options])
    assert message in capsys.readouterr().err
