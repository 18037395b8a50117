import json

import pytest

from det_losses.cli.compare_losses import main

ENDLESS = "L1Loss:loss_weight=1e38"  # more than float32 holds once it is summed


def results(folder):
    return json.loads((folder / "results.json").read_text())


def statuses(folder):
    return {(run["loss"], run["seed"]): run["status"] for run in results(folder)["runs"]}


def test_a_failed_run_does_not_stop_the_others_and_a_further_loss_is_added(
    tiny_config, tmp_path, capsys
):
    folder = tmp_path / "out"
    common = [str(tiny_config), "--work-dir", str(folder), "--losses"]
    assert main([*common, ENDLESS, "SmoothL1Loss:beta=0.5"]) == 1
    assert statuses(folder) == {(ENDLESS, 0): "failed", ("SmoothL1Loss:beta=0.5", 0): "done"}
    failed, done = results(folder)["runs"]
    assert "NonFiniteError" in failed["error"]
    assert failed["metrics"]["AP"] is None
    assert done["config"] == {"type": "SmoothL1Loss", "loss_weight": 1.0, "beta": 0.5}
    assert done["built"]["loss_bbox"].startswith("SmoothL1Loss(beta=0.5")
    assert set(done["metrics"]) >= {"AP", "AP50", "AP75", "AP80", "AP90", "APs", "APm", "APl"}
    assert done["metrics"]["APl"] is None  # no box of 96 x 96 pixels in these images
    assert done["train_seconds"] > 0
    assert done["peak_memory_mb"] > 100
    run = folder / done["work_dir"]
    assert {"config.py", "output.log", "metrics.json", "detections.json", "epoch_2.pth"} <= {
        path.name for path in run.iterdir()
    }
    printed = capsys.readouterr().out
    assert "beta: given by the user; weight: mmdet 1.x" in printed
    assert "[1/2]" in printed
    assert f"failed: {ENDLESS} seed 0:" in printed
    report = (folder / "report.md").read_text()
    assert "NonFiniteError" in report
    assert "n/a (0 boxes)" in report

    before = (run / "epoch_2.pth").stat().st_mtime_ns
    assert main([*common, "SmoothL1Loss:beta=0.5", "GIoULoss"]) == 1  # that of before still failed
    assert statuses(folder)[("GIoULoss", 0)] == "done"
    assert "(finished before)" in capsys.readouterr().out
    assert (run / "epoch_2.pth").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--losses", "L1Loss", "FocalLoss"], "RetinaNet.loss_bbox takes a box loss"),
        (["--losses", "L1Loss", "GIuLoss"], "Did you mean 'GIoULoss'"),
        (["--losses", "L1Loss:bta=1"], "has no parameter 'bta'"),
        (["--losses", "FocalL1Loss:beta=3"], "beta"),
        (["--losses", "L1Loss", "L1Loss"], "--losses names L1Loss twice"),
        (["--losses", "L1Loss", "--seeds", "1", "1"], "--seeds names 1 twice"),
        (
            ["--losses", "L1Loss", "--component", "loss_box"],
            "RetinaNet has the losses loss_cls, lo",
        ),
        (["--losses", "L1Loss", "--amp"], "mixed precision"),
        (["--losses", "L1Loss", "--val-ann", "absent.json", "--val-images", "."], "absent.json"),
        (["--losses", "L1Loss", "--cfg-options", "model.num_classes=9"], "model.num_classes is 9"),
        (
            ["--losses", "L1Loss", "--cfg-options", "model.type=ResNetFPN"],
            "ResNetFPN is no detector",
        ),
    ],
)
def test_all_is_checked_before_the_first_training(
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


def test_a_classification_loss_is_compared_in_its_own_slot(tiny_config, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(
        "det_losses.compare.comparison.run_process",
        lambda command, *args, **kwargs: trained.append(command) or 0,
    )
    monkeypatch.setattr("det_losses.compare.comparison._tail", lambda *args: "nothing ran")
    options = ["--component", "loss_cls", "--losses", "FocalLoss", "BinaryCrossEntropyLoss"]
    main([str(tiny_config), "--work-dir", str(tmp_path / "out"), *options])
    assert [run["config"] for run in results(tmp_path / "out")["runs"]] == [
        {"type": "FocalLoss", "loss_weight": 1.0},
        {"type": "BinaryCrossEntropyLoss", "loss_weight": 0.5},
    ]
    assert len(trained) == 2
