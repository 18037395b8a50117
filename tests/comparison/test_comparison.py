"""Whole comparisons. Their runs train in this process or not at all; processes: test_runner."""

import contextlib
import copy
import io
import json
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from training import compare, runs_in_this_process

from det_losses import list_losses
from det_losses.cli import report
from det_losses.comparison import comparison, prepare, runner, weight_matching
from det_losses.comparison.budget import Budget
from det_losses.comparison.plan import Plan
from det_losses.comparison.preflight import describe_data
from det_losses.comparison.prepare import check_metric, with_epochs
from det_losses.comparison.process import LocalExecutor
from det_losses.comparison.screening import short_trainer, shorten
from det_losses.comparison.variants import select
from det_losses.engine import fitted_anchors
from det_losses.engine.config import use_folds, use_own_data
from det_losses.registry import DATASETS, MODELS

ENDLESS = "L1Loss(loss_weight=1e39)"  # infinite in float32
GIVEN = "SmoothL1Loss(beta=0.5)"


def results(folder):
    return json.loads((folder / "results.json").read_text())


def run_of(folder, label, seed=0):
    return next(
        run for run in results(folder)["runs"] if (run["variant"], run["seed"]) == (label, seed)
    )


def changes(folder):
    return {k: v["changes"] for k, v in results(folder)["meta"]["variants"].items()}


@pytest.fixture(scope="module")
def story(shapes, tmp_path_factory):
    """Two commands in one directory: one loss of the first fails; the second adds loss and seed."""
    cfg = copy.deepcopy(shapes)
    cfg.train_dataloader.dataset.num_images = 8
    folder = tmp_path_factory.mktemp("story") / "out"
    commands = []
    for losses, seeds in (([ENDLESS, GIVEN], [0]), ([GIVEN, "GIoULoss"], [0, 1])):
        with runs_in_this_process(), contextlib.redirect_stdout(io.StringIO()) as printed:
            rows = compare(cfg, folder, losses, seeds=seeds, resamples=100)
        command = SimpleNamespace(rows=rows, out=printed.getvalue())
        command.report = (folder / "report.md").read_text()
        checkpoint = folder / run_of(folder, GIVEN)["work_dir"] / "epoch_1.pth"
        command.made = checkpoint.stat().st_mtime_ns
        commands.append(command)
    return SimpleNamespace(cfg=cfg, folder=folder, commands=commands)


def test_a_failed_run_does_not_stop_the_others(story):
    first = story.commands[0]
    assert [(row["variant"], row["status"]) for row in first.rows] == [
        (ENDLESS, "failed"),
        (GIVEN, "done"),
    ]
    failed = first.rows[0]
    assert "NonFiniteError" in failed["error"]
    assert failed["metrics"]["AP"] is None
    assert f"failed: {ENDLESS} seed 0:" in first.out
    assert "NonFiniteError" in first.report
    assert "has no finished run" in first.report  # the baseline failed


def test_a_run_writes_the_files_that_the_report_needs(story):
    done = run_of(story.folder, GIVEN)
    assert done["proof"]["loss_bbox"]["calls"] == 2  # one epoch of two steps
    assert done["built"]["loss_bbox"].startswith("SmoothL1Loss(beta=0.5")
    assert set(done["metrics"]) >= {"AP", "AP50", "AP75", "AP80", "AP90", "APs", "APm", "APl"}
    assert done["metrics"]["APl"] is None  # no box of 96 x 96 pixels in these images
    assert done["train_seconds"] > 0
    assert done["peak_memory_mb"] > 100
    names = ("config.py", "output.log", "metrics.json", "detections.json", "history.jsonl")
    run = story.folder / done["work_dir"]
    assert {*names, "epoch_1.pth"} <= {path.name for path in run.iterdir()}


def test_the_output_has_the_variants_and_the_path_of_the_report(story):
    first = story.commands[0]
    assert "8 training and 4 validation images" in first.out
    assert "beta given" in first.out
    assert "[2/2] SmoothL1Loss(beta=0.5) seed 0  AP" in first.out
    assert (story.folder / "report.html").as_uri() in first.out


def test_losses_and_seeds_can_be_added_without_repeating_runs(story):
    first, second = story.commands
    assert {(row["variant"], row["seed"]): row["status"] for row in second.rows} == {
        (ENDLESS, 0): "failed",  # and has no seed 1: the second command did not ask for it
        (GIVEN, 0): "done",
        ("GIoULoss", 0): "done",
        (GIVEN, 1): "done",
        ("GIoULoss", 1): "done",
    }
    assert "(already finished)" in second.out
    assert first.made == second.made


def test_seeds_give_a_report_with_an_interval(story):
    done = [row for row in story.commands[1].rows if row["status"] == "done"]
    assert len({row["initial_weights"] for row in done}) == 2  # one a seed, whatever the loss
    names = {path.name for path in story.folder.iterdir()}
    assert {"report.html", "report.md", "differences.csv", "results.csv"} <= names
    assert "does not support a ranking" in story.commands[1].out  # its AP is far too low


def test_damaged_files_of_a_finished_comparison_are_rebuilt(story, capsys):
    before = results(story.folder)
    names = ["plan.json", "ground_truth.json", f"{run_of(story.folder, GIVEN)['work_dir']}/"]
    names[2] += "metrics.json"
    names.append(f"{run_of(story.folder, GIVEN, 1)['work_dir']}/detections.json")
    whole = {name: (story.folder / name).read_bytes() for name in names}
    for name, content in whole.items():
        (story.folder / name).write_bytes(content[: len(content) // 2])
    cfg = copy.deepcopy(story.cfg)
    with runs_in_this_process():
        compare(cfg, story.folder, [GIVEN, "GIoULoss"], seeds=[0, 1], resamples=100)
    after = results(story.folder)
    for old, new in zip(before["runs"], after["runs"], strict=True):
        assert (old["status"], old["metrics"]) == (new["status"], new["metrics"])
        assert old["proof"] == new["proof"]  # no step was repeated
    out = capsys.readouterr().out
    for name in names:
        assert f"{story.folder / name} is " in out
    for name in (*names[:2], names[3]):
        assert (story.folder / name).read_bytes() == whole[name]


def test_a_report_that_cannot_be_written_is_an_error_after_the_runs(story, monkeypatch):
    def full_disk(study, root):
        raise OSError(28, "No space left on device", str(root / "report.html"))

    monkeypatch.setattr(comparison, "write_report", full_disk)
    with pytest.raises(ValueError, match=r"no report: .*No space left .*run python -m det_loss"):
        compare(story.cfg, story.folder, [GIVEN], seeds=[0], resamples=100)
    assert run_of(story.folder, GIVEN)["status"] == "done"


@pytest.mark.parametrize("lost", [["results.json"], ["ground_truth.json"], None])
def test_the_report_tool_rebuilds_what_is_damaged(story, capsys, lost):
    before = results(story.folder)
    truth = (story.folder / "ground_truth.json").read_bytes()
    for name in lost or ["results.json", "ground_truth.json"]:
        (story.folder / name).write_text("{")
    assert report.main([str(story.folder)]) == 0
    out = capsys.readouterr().out
    assert out.count("was missing or damaged; it was rebuilt") == len(lost or "ab")
    assert (story.folder / "ground_truth.json").read_bytes() == truth
    after = results(story.folder)
    assert after["runs"] == before["runs"]
    data = ("classes", "images", "val_boxes", "image_dir", "variants", "seeds", "hash")
    assert {key: after["meta"][key] for key in data} == {key: before["meta"][key] for key in data}
    assert report.main([str(story.folder)]) == 0
    assert "rebuilt" not in capsys.readouterr().out.replace("was rebuilt from the runs", "")


def test_validation_data_that_changed_does_not_replace_a_damaged_ground_truth(story, monkeypatch):
    file = story.folder / "ground_truth.json"
    whole = file.read_bytes()
    file.write_text("{")
    monkeypatch.setattr(
        "det_losses.comparison.rebuild.describe_data",
        lambda cfg: {**describe_data(cfg), "val_boxes": {"all": 1}},
    )
    with pytest.raises(SystemExit):
        report.main([str(story.folder)])
    file.write_bytes(whole)


@pytest.fixture(scope="module")
def folds(shapes, tmp_path_factory):
    """Two losses on three folds of 13 images, then a third loss by the same command."""
    cfg = copy.deepcopy(shapes)
    root = Path(DATASETS.build(cfg.train_dataloader.dataset).ann_file).parent
    use_own_data(cfg, "train", root / "train.json", root / "images")
    cfg.train_dataloader.dataset.num_images = 13
    use_folds(cfg, 3)
    folder = tmp_path_factory.mktemp("folds") / "out"
    printed = []
    for losses in ([GIVEN, "GIoULoss"], [GIVEN, "EIoULoss"]):
        with runs_in_this_process(), contextlib.redirect_stdout(io.StringIO()) as out:
            compare(cfg, folder, losses, resamples=100)
        printed.append(out.getvalue())
    return SimpleNamespace(cfg=cfg, folder=folder, printed=printed)


def test_each_seed_is_evaluated_on_the_fold_that_it_was_not_trained_on(folds):
    truth = json.loads((folds.folder / "ground_truth.json").read_text())
    fold_of = {image["id"]: image["fold"] for image in truth["images"]}
    assert sorted(Counter(fold_of.values()).values()) == [4, 4, 5]
    rows = results(folds.folder)["runs"]
    assert [(row["seed"], row["status"]) for row in rows] == [
        (seed, "done") for seed in range(3) for _ in range(3)
    ]
    for row in rows:
        run = folds.folder / row["work_dir"]
        found = {d["image_id"] for d in json.loads((run / "detections.json").read_text())}
        assert found <= {i for i, fold in fold_of.items() if fold == row["seed"]}
        cfg = Config.fromfile(run / "config.py")  # which repeats this run by hand
        train = DATASETS.build(cfg.train_dataloader.dataset)
        assert train.image_ids == [i for i, fold in fold_of.items() if fold != row["seed"]]


def test_what_is_said_of_folds(folds):
    first, second = folds.printed
    assert "13 images in 3 folds: seed s trains on all but fold s mod 3 and is" in first
    assert second.count("(already finished)") == 3  # the baseline; GIoULoss was not asked for
    report = (folds.folder / "report.md").read_text()
    assert "images in each run. 13 evaluated images" in report and "divided into 3 folds" in report
    assert "about other training sets of this size as well as other seeds" in report
    assert "SE² = V_j (1 / S_j + 1 / 2)" in report and "Owen" not in report


def test_other_folds_are_another_config(folds):
    cfg = copy.deepcopy(folds.cfg)
    use_folds(cfg, 4)
    with pytest.raises(ValueError, match=r"folds.count: 3 -> 4"):
        compare(cfg, folds.folder, [GIVEN])


@pytest.fixture
def untrained(monkeypatch):
    """Runs do not train; return their commands."""
    commands = []

    def fake(command, *args, **kwargs):
        commands.append(command)
        return 1

    monkeypatch.setattr(LocalExecutor, "run", staticmethod(fake))
    monkeypatch.setattr(runner, "_tail", lambda *args: "nothing ran")
    return commands


def test_the_terminal_says_which_signal_killed_a_run(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LocalExecutor, "run", lambda *args, **kwargs: -9)
    rows = compare(shapes, tmp_path, ["L1Loss"], seeds=[0])
    assert rows[0]["status"] == "failed"
    out = capsys.readouterr().out
    assert "L1Loss seed 0  FAILED (killed by SIGKILL (out of memory?)), log: " in out
    assert "failed: L1Loss seed 0: killed by SIGKILL (out of memory?)\n" in out


def test_adding_a_loss_keeps_the_baseline_of_the_directory(shapes, tmp_path, untrained, capsys):
    commands = [["L1Loss"], ["GIoULoss"], ["GIoULoss", "EIoULoss"]]
    found = []
    for losses in commands:
        compare(shapes, tmp_path / "out", losses)
        found.append(json.loads((tmp_path / "out" / "results.json").read_text())["meta"])
    # The third command names a variant that the directory has: its first one is the baseline.
    assert [meta["baseline"] for meta in found] == ["L1Loss", "L1Loss", "GIoULoss"]
    assert list(found[-1]["variants"]) == ["L1Loss", "GIoULoss", "EIoULoss"]


def test_all_runs_have_the_same_fitted_anchors(shapes, tmp_path, untrained, capsys, monkeypatch):
    cfg = copy.deepcopy(shapes)
    cfg.model.anchors = dict(sizes=[[150, 180], [200, 250]], aspect_ratios=[1.0])  # of 64 px images
    root, given = tmp_path / "out", cfg.to_dict()
    compare(cfg, root, ["L1Loss"], seeds=[0, 1], fit_anchors=True)
    assert "anchors: fitted to the training data: " in capsys.readouterr().out
    fitted = Plan.load(root).config["model"]["anchors"]
    assert fitted["sizes"] != cfg.model.anchors.sizes and cfg.to_dict() == given
    with pytest.raises(ValueError, match=r"a different config \(model\.anchors\."):
        compare(cfg, root, ["GIoULoss"], seeds=[0])
    monkeypatch.setattr(fitted_anchors, "fitted", None)  # not called again
    compare(cfg, root, ["GIoULoss"], seeds=[0], fit_anchors=True)
    assert "anchors: those with which this was started" in capsys.readouterr().out
    runs = [Config.fromfile(file).model.anchors for file in root.glob("runs/*/*/config.py")]
    assert [anchors.to_dict() for anchors in runs] == [fitted] * 3


def test_a_grid_of_wrapped_losses_and_a_config_variant(shapes, tmp_path, untrained, capsys):
    wrapped = "InnerIoU(FocalIoU(CIoULoss), ratio=0.75)"
    both = "SumLoss(L1Loss, GIoULoss(loss_weight=2.0))"
    compare(
        shapes,
        tmp_path / "out",
        [wrapped, both],
        cross=["loss_cls", "FocalLoss", "CrossEntropyLoss"],
        variant=["slow:optim_wrapper.optimizer.lr=1e-3"],
        baseline="slow",
        seeds=[0],
    )
    assert results(tmp_path / "out")["meta"]["baseline"] == "slow"
    found = changes(tmp_path / "out")
    assert list(found) == [
        f"{wrapped} + FocalLoss",
        f"{wrapped} + CrossEntropyLoss",
        f"{both} + FocalLoss",
        f"{both} + CrossEntropyLoss",
        "slow",
    ]
    assert found[f"{wrapped} + FocalLoss"]["model.loss_bbox"]["loss"]["loss"] == {
        "type": "CIoULoss"
    }
    printed = capsys.readouterr().out
    assert printed.count(wrapped) >= 4 and printed.count(both) >= 4  # label and config
    assert "{" not in printed
    assert len(untrained) == 5
    slow = Config.fromfile(tmp_path / "out" / "runs" / "slow" / "seed_0" / "config.py")
    assert slow.optim_wrapper.optimizer.lr == 0.001
    assert slow.model.loss_bbox == {"type": "L1Loss", "loss_weight": 1.0}


@pytest.mark.parametrize("slot", ["loss_bbox", "loss_cls"])
def test_a_name_trains_the_same_loss_in_a_comparison_and_in_a_config(
    shapes, tmp_path, untrained, slot
):
    # Compares the config that `train` gets for each run with the name in a config.
    kind = {"loss_bbox": "box", "loss_cls": "classification"}[slot]
    names = [i.name for i in list_losses() if i.kind == kind and set(i.config) == {"type"}]
    compare(shapes, tmp_path / "out", names, component=slot, seeds=[0])
    assert len(untrained) == len(names) > 10

    def built(model):
        return repr(MODELS.build({**model, "num_classes": 3}).losses[slot])

    for name, command in zip(names, untrained, strict=True):
        run = Config.fromfile(command[command.index("train") + 1])
        assert built(run.model) == built({**shapes.model, slot: name})


def test_matched_and_swept_weights_reach_the_runs(shapes, tmp_path, untrained, monkeypatch):
    few = partial(weight_matching.match_weights, warmup_steps=1, batches=8)
    monkeypatch.setattr(weight_matching, "match_weights", few)
    compare(shapes, tmp_path, ["L1Loss", "GIoULoss"], match_weights="gradient", weights=[1, 2])
    stored = json.loads((tmp_path / "matched_weights.json").read_text())["losses"]
    matched = stored["GIoULoss"]["loss_weight"]
    found = changes(tmp_path)
    assert {label: each["model.loss_bbox"]["loss_weight"] for label, each in found.items()} == {
        "L1Loss": 1.0,
        "L1Loss x2": 2.0,
        "GIoULoss": matched,
        "GIoULoss x2": 2 * matched,
    }
    assert matched != 2.5


def test_a_budget_plans_the_seeds_that_fit_and_says_so(shapes, tmp_path, untrained, capsys):
    compare(shapes, tmp_path, ["L1Loss", "GIoULoss"], budget=300)
    assert results(tmp_path)["meta"]["seeds"] == [0, 1]
    assert "seeds 0, 1: 4 runs of about 1 min 00 s" in capsys.readouterr().out


def test_no_run_is_started_after_the_end_of_the_budget(
    shapes, tmp_path, untrained, monkeypatch, capsys
):
    monkeypatch.setattr(Budget, "allows_run", lambda *args: False)
    compare(shapes, tmp_path, ["L1Loss"], budget=300)
    assert untrained == []
    assert "not started: not enough of the time budget is left" in capsys.readouterr().out
    assert "time budget ran out" in results(tmp_path)["meta"]["notes"][0]


def test_another_config_in_the_directory_is_refused_before_weights_are_matched(
    shapes, tmp_path, untrained
):
    compare(shapes, tmp_path, ["L1Loss"])
    other = copy.deepcopy(shapes)
    other.model.num_convs = 2
    with pytest.raises(ValueError, match=r"a different config \(model.num_convs: 1 -> 2\)"):
        compare(other, tmp_path, ["L1Loss", "GIoULoss"], match_weights="gradient")
    assert not (tmp_path / "matched_weights.json").exists()


def test_a_config_with_loss_weights_is_an_error(shapes, tmp_path):
    cfg = copy.deepcopy(shapes)
    cfg.loss_weights = {"RetinaNet": {"loss_bbox": {"L1Loss": {"loss_weight": 5.0}}}}
    with pytest.raises(ValueError, match="`loss_weights` is no longer supported"):
        compare(cfg, tmp_path, ["L1Loss"])


def test_a_short_training_without_a_result_ranks_nothing(shapes, tmp_path, untrained, capsys):
    facts = {**describe_data(shapes), "baseline": "L1Loss", "metric": "AP"}
    train = short_trainer(facts, 3, lock=0, jobs=1, budget=None)
    variants = select(shapes, ["L1Loss", "GIoULoss"]).variants
    assert train(shapes, variants, tmp_path / "short") == {}
    assert results(tmp_path / "short")["meta"]["seeds"] == [3]
    assert "Screening 2 variants, 1 epoch each" in capsys.readouterr().out


@pytest.mark.slow
def test_screening_trains_briefly_and_then_the_remaining_variants(shapes, tmp_path, capsys):
    cfg = copy.deepcopy(shapes)
    cfg.train_dataloader.dataset.num_images = 8
    cfg.train_cfg.max_epochs = 2
    losses = ["L1Loss", "GIoULoss", "MSELoss"]
    with runs_in_this_process():
        rows = compare(cfg, tmp_path, losses, screen=True, seeds=[0], resamples=100)
    short = results(tmp_path / "screen/1_epochs")["runs"]
    assert [run["proof"]["loss_bbox"]["calls"] for run in short] == [2] * 3
    assert [row["proof"]["loss_bbox"]["calls"] for row in rows] == [4] * 2
    printed = capsys.readouterr().out
    assert "Screening dropped " in printed
    assert "can be dropped although it is the best" in printed
    assert "can be dropped although it is the best" in results(tmp_path)["meta"]["notes"][1]


def test_all_runs_have_the_epochs_of_a_number_of_steps(shapes, tmp_path, untrained, capsys):
    # 160 images in batches of 4 are 40 steps per epoch.
    cfg = copy.deepcopy(shapes)
    cfg.train_cfg = dict(by_epoch=True, steps=90, val_interval=None)
    compare(cfg, tmp_path, ["L1Loss", "GIoULoss"], seeds=[0], resamples=100)
    assert (
        "  training       2 epochs (80 steps), batch size 4; evaluated" in capsys.readouterr().out
    )
    stored = Plan.load(tmp_path).config["train_cfg"]
    assert stored == {"by_epoch": True, "max_epochs": 2, "val_interval": None}
    assert shorten(with_epochs(cfg)).train_cfg.max_epochs == 1


def test_time_and_likely_result_are_stated_before_training(
    shapes, tmp_path, untrained, monkeypatch, capsys, finish
):
    compare(shapes, tmp_path, ["L1Loss", "GIoULoss"], seeds=[0, 1])
    printed = capsys.readouterr().out
    expected = [
        "Timing a few steps",
        "\nPlan\n  images         160 training and 4 validation images\n",
        "  training       1 epoch (40 steps), batch size 4; evaluated at the end\n",
        "  learning rate  0.004 (AdamW), CosineAnnealingLR, warm-up 4 steps (shortened from 50: at",
        "  runs           4: 2 variants with seeds 0, 1\n",
        "  time           about 1.0 min a run, 4.0 min in all (timed; evaluations take 0.1 min of",
        "  disk           about ",
        "  finds          2 seeds are likely (80%) to find a difference of ",
        "[1/4]",
    ]
    places = [printed.index(text) for text in expected]
    assert places == sorted(places)
    # Finished runs are a better estimate than a measurement.
    monkeypatch.setattr(prepare, "measure_run", None)
    finish(Plan.load(tmp_path).runs(tmp_path)[0])
    compare(shapes, tmp_path, ["L1Loss", "GIoULoss"], seeds=[0, 1])
    printed = capsys.readouterr().out
    assert "with seeds 0, 1; 1 finished\n" in printed
    assert "about 1.0 min a run, 3.0 min in all (as the finished runs took)" in printed


def test_another_metric_for_finished_runs_is_exploratory(
    shapes, tmp_path, untrained, capsys, finish
):
    losses = ["L1Loss", "GIoULoss"]
    compare(shapes, tmp_path, losses, seeds=[0])
    compare(shapes, tmp_path, losses, seeds=[0], metric="AP50")  # no run is finished yet
    assert "planned_metric" not in results(tmp_path)["meta"]
    finish(Plan.load(tmp_path).runs(tmp_path)[0])
    compare(shapes, tmp_path, losses, seeds=[0], metric="AP50")
    capsys.readouterr()
    compare(shapes, tmp_path, losses, seeds=[0], metric="AP75")
    assert "AP75 is chosen after the first runs, which were planned for AP50" in (
        capsys.readouterr().out
    )
    meta = results(tmp_path)["meta"]
    assert (meta["metric"], meta["planned_metric"]) == ("AP75", "AP50")
    compare(shapes, tmp_path, losses, seeds=[0], metric="AP50")  # the planned one again
    assert "planned_metric" not in results(tmp_path)["meta"]


def test_a_dry_run_prints_the_plan_and_leaves_nothing(shapes, tmp_path, capsys):
    root, cfg = tmp_path / "out", copy.deepcopy(shapes)
    cfg.test_dataloader = dict(batch_size=1)  # the rest is that of val_dataloader
    losses = ["L1Loss", "GIoULoss"]
    assert compare(cfg, root, losses, match_weights="gradient", dry_run=True) == []
    printed = capsys.readouterr().out
    assert "  runs           6: 2 variants with seeds 0, 1, 2\n" in printed
    assert "Variants (before --match-weights)\n| variant " in printed
    assert not root.exists()


def test_the_metric_may_be_that_of_a_class(shapes, tmp_path):
    known = describe_data(shapes)["classes"]
    check_metric(f"AP/{known[0]}", known)
    wrong = f"AP/{known[0][:-1]}"
    with pytest.raises(ValueError, match=rf"--metric {wrong}: no such .* 'AP/{known[0]}'\?"):
        compare(shapes, tmp_path, ["L1Loss", "GIoULoss"], metric=wrong, dry_run=True)


def test_forked_runs_continue_the_baseline_and_losses_can_be_added(shapes, tmp_path):
    cfg = copy.deepcopy(shapes)
    cfg.train_dataloader.dataset.num_images = 8  # an epoch of two steps
    cfg.train_cfg.max_epochs = 2
    options = dict(baseline=GIVEN, fork_at=0.5, seeds=[0], resamples=100)
    with runs_in_this_process():
        compare(cfg, tmp_path, ["GIoULoss", GIVEN], **options)
        base = tmp_path / run_of(tmp_path, GIVEN)["work_dir"]
        made = (base / "metrics.json").stat().st_mtime_ns
        rows = compare(cfg, tmp_path, [GIVEN, "MSELoss"], **options)
    steps = {row["variant"]: row["proof"]["loss_bbox"]["calls"] for row in rows}
    assert steps == {"GIoULoss": 2, GIVEN: 4, "MSELoss": 2}
    assert len({row["initial_weights"] for row in rows}) == 1
    assert (base / "metrics.json").stat().st_mtime_ns == made
    stored = json.loads((tmp_path / rows[0]["work_dir"] / "metrics.json").read_text())["fork"]
    assert (stored["epoch"], stored["losses"]["loss_bbox"][:12]) == (1, "SmoothL1Loss")
    assert ", forked after epoch 1 of 2" in (tmp_path / "report.md").read_text()
    with pytest.raises(ValueError, match=r"different config \(--fork-at: "):
        compare(cfg, tmp_path, [GIVEN, "MSELoss"], **{**options, "fork_at": None})


def test_the_baseline_of_a_fork_gets_the_seeds_of_the_candidates(
    shapes, tmp_path, untrained, monkeypatch
):
    """It trains the first part for them, also if it is no candidate any more."""
    cfg = copy.deepcopy(shapes)
    cfg.train_cfg.max_epochs = 2

    def second_look(start, root, labels, seeds, settings):
        return start({"GIoULoss": [3, 4]}).execute()

    monkeypatch.setattr(comparison, "until_decided", second_look)
    compare(cfg, tmp_path, ["L1Loss", "GIoULoss", "MSELoss"], fork_at=0.5, until_decided=True)
    runs = {(run["variant"], run["seed"]) for run in results(tmp_path)["runs"]}
    assert runs == {(label, seed) for label in ("L1Loss", "GIoULoss") for seed in (3, 4)}
