import json

import pytest
from mmengine.config import Config

from det_losses.cli.compare_losses import main
from det_losses.compare.budget import measure_run
from det_losses.compare.variants import Variant

ENDLESS = "L1Loss(loss_weight=1e38)"  # more than float32 holds once it is summed


def results(folder):
    return json.loads((folder / "results.json").read_text())


def statuses(folder):
    return {(run["variant"], run["seed"]): run["status"] for run in results(folder)["runs"]}


def test_a_failed_run_does_not_stop_the_others_and_a_further_loss_is_added(
    tiny_config, tmp_path, capsys
):
    folder = tmp_path / "out"
    common = [str(tiny_config), "--work-dir", str(folder), "--losses"]
    assert main([*common, ENDLESS, "SmoothL1Loss(beta=0.5)"]) == 1
    assert statuses(folder) == {(ENDLESS, 0): "failed", ("SmoothL1Loss(beta=0.5)", 0): "done"}
    failed, done = results(folder)["runs"]
    assert "NonFiniteError" in failed["error"]
    assert failed["metrics"]["AP"] is None
    assert done["proof"]["loss_bbox"]["calls"] == 4  # 2 epochs of 2 steps
    assert done["built"]["loss_bbox"].startswith("SmoothL1Loss(beta=0.5")
    assert set(done["metrics"]) >= {"AP", "AP50", "AP75", "AP80", "AP90", "APs", "APm", "APl"}
    assert done["metrics"]["APl"] is None  # no box of 96 x 96 pixels in these images
    assert done["train_seconds"] > 0
    assert done["peak_memory_mb"] > 100
    run = folder / done["work_dir"]
    names = ("config.py", "output.log", "metrics.json", "detections.json", "history.jsonl")
    assert {*names, "epoch_2.pth"} <= {path.name for path in run.iterdir()}
    assert (folder / "report.html").as_uri() in (printed := capsys.readouterr().out)
    assert "beta: given by the user; weight: mmdet 1.x" in printed
    assert "[1/2]" in printed
    assert f"failed: {ENDLESS} seed 0:" in printed
    report = (folder / "report.md").read_text()
    assert "NonFiniteError" in report
    assert "has no finished run" in report  # the baseline failed

    before = (run / "epoch_2.pth").stat().st_mtime_ns
    assert main([*common, "SmoothL1Loss(beta=0.5)", "GIoULoss"]) == 1  # that of before still failed
    assert statuses(folder)[("GIoULoss", 0)] == "done"
    assert "(finished before)" in capsys.readouterr().out
    assert (run / "epoch_2.pth").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--losses", "L1Loss", "FocalLoss"], "RetinaNet.loss_bbox takes a box loss"),
        (["--losses", "L1Loss", "GIuLoss"], "Did you mean 'GIoULoss'"),
        (["--losses", "L1Loss(bta=1)"], "has no parameter 'bta'"),
        (["--losses", "FocalL1Loss(beta=3)"], "beta"),
        (["--losses", "L1Loss", "L1Loss"], "names L1Loss twice"),
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


@pytest.fixture
def trained(monkeypatch):
    """No run trains; gives the commands."""
    commands = []
    module = "det_losses.compare.comparison"
    monkeypatch.setattr(f"{module}.run_process", lambda command, *a, **k: commands.append(command))
    monkeypatch.setattr(f"{module}._tail", lambda *args: "nothing ran")
    return commands


def changes(folder):
    return {k: v["changes"] for k, v in results(folder)["meta"]["variants"].items()}


def test_a_classification_loss_is_compared_in_its_own_slot(tiny_config, tmp_path, trained):
    options = ["--component", "loss_cls", "--losses", "FocalLoss", "BinaryCrossEntropyLoss"]
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "out"), *options]) == 1
    assert changes(tmp_path / "out") == {
        "FocalLoss": {"model.loss_cls": {"type": "FocalLoss", "loss_weight": 1.0}},
        "BinaryCrossEntropyLoss": {
            "model.loss_cls": {"type": "BinaryCrossEntropyLoss", "loss_weight": 0.5}
        },
    }
    assert len(trained) == 2


def test_a_grid_and_whole_variants_are_compared(tiny_config, tmp_path, trained):
    cross = ["--cross", "loss_cls", "FocalLoss", "CrossEntropyLoss"]
    variant = ["--variant", "slow:optim_wrapper.optimizer.lr=1e-3"]
    options = ["--losses", "L1Loss", *cross, *variant, "--baseline", "slow"]
    main([str(tiny_config), "--work-dir", str(tmp_path / "out"), *options])
    assert list(changes(tmp_path / "out")) == [
        "L1Loss + FocalLoss",
        "L1Loss + CrossEntropyLoss",
        "slow",
    ]
    assert results(tmp_path / "out")["meta"]["baseline"] == "slow"
    written = (tmp_path / "out" / "runs" / "slow" / "seed_0" / "config.py").read_text()
    assert "lr=0.001" in written


def test_matched_and_swept_weights_reach_the_runs(tiny_config, tmp_path, trained):
    options = ["--losses", "L1Loss", "GIoULoss", "--match-weights", "gradient", "--weights", "1"]
    options += ["2"]
    main([str(tiny_config), "--work-dir", str(tmp_path / "out"), *options])
    stored = json.loads((tmp_path / "out" / "matched_weights.json").read_text())["losses"]
    got = {k: v["model.loss_bbox"]["loss_weight"] for k, v in changes(tmp_path / "out").items()}
    matched = stored["GIoULoss"]["loss_weight"]
    assert got == {
        "L1Loss": 1.0,
        "L1Loss x2": 2.0,
        "GIoULoss": matched,
        "GIoULoss x2": 2 * matched,
    }
    assert matched != 2.5


def test_a_budget_plans_the_seeds_that_fit_and_says_so(
    tiny_config, tmp_path, trained, monkeypatch, capsys
):
    monkeypatch.setattr("det_losses.cli.compare_losses.measure_run", lambda *args: 60.0)
    folder = tmp_path / "out"
    options = ["--work-dir", str(folder), "--losses", "L1Loss", "GIoULoss", "--budget", "5min"]
    main([str(tiny_config), *options])
    assert results(folder)["meta"]["seeds"] == [0, 1]
    assert "seeds 0, 1: 4 runs of about 1 min 00 s" in capsys.readouterr().out


def test_a_spent_budget_starts_no_run_and_the_report_says_so(
    tiny_config, tmp_path, trained, monkeypatch, capsys
):
    monkeypatch.setattr("det_losses.cli.compare_losses.measure_run", lambda *args: 60.0)
    monkeypatch.setattr("det_losses.compare.budget.Budget.allows_run", lambda *args: False)
    folder = tmp_path / "out"
    main([str(tiny_config), "--work-dir", str(folder), "--losses", "L1Loss", "--budget", "5min"])
    assert trained == []
    assert "not started: too little of the budget is left" in capsys.readouterr().out
    assert "time budget ended" in results(folder)["meta"]["notes"][0]


def test_seeds_give_a_report_with_an_interval(tiny_config, tmp_path, capsys):
    folder = tmp_path / "out"
    options = ["--losses", "L1Loss", "GIoULoss", "--seeds", "0", "1", "--resamples", "100"]
    assert main([str(tiny_config), "--work-dir", str(folder), *options]) == 0
    runs = results(folder)["runs"]
    assert len({run["initial_weights"] for run in runs}) == 2  # one a seed, whatever the loss
    assert {"report.html", "report.md", "differences.csv"} <= {p.name for p in folder.iterdir()}
    assert "does not support a ranking" in capsys.readouterr().out  # its AP is far too low


def test_a_run_is_measured_by_its_steps_and_evaluations(tiny_config):
    cfg = Config.fromfile(tiny_config)
    variant = Variant("L1Loss", {"model.loss_bbox": {"type": "L1Loss"}})
    short = measure_run(cfg, variant, 1)
    cfg.train_cfg.max_epochs = 2000
    assert measure_run(cfg, variant, 1) > 2 * short


def test_a_loss_that_wraps_others_is_named_by_its_expression(
    tiny_config, tmp_path, trained, capsys
):
    wrapped = "InnerIoU(FocalIoU(CIoULoss), ratio=0.75)"
    both = "SumLoss(L1Loss, GIoULoss(loss_weight=2.0))"
    folder = tmp_path / "out"
    main([str(tiny_config), "--work-dir", str(folder), "--losses", "CIoULoss", wrapped, both])
    assert changes(folder)[wrapped]["model.loss_bbox"]["loss"]["loss"] == {"type": "CIoULoss"}
    printed = capsys.readouterr().out
    assert printed.count(wrapped) >= 2 and printed.count(both) >= 2  # label and configuration
    assert "{" not in printed
    configs = sorted(folder.glob("runs/*/seed_0/config.py"))
    assert len(configs) == 3 and any("InnerIoU" in config.read_text() for config in configs)
