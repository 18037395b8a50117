"""Forked comparisons. Runs end immediately or train in this process; the hook: engine/test_fork."""

from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict

from det_losses.comparison.budget import Budget
from det_losses.comparison.fork import FORK_FILE, Fork, check_fork, fork_of
from det_losses.comparison.plan import Plan
from det_losses.comparison.process import LocalExecutor
from det_losses.comparison.results import Results
from det_losses.comparison.runner import PlanRunner
from det_losses.comparison.variants import select
from det_losses.files import read_json, write_json

FACTS = {"config": "x", "command": "compare x", "classes": ["cat"]}


@pytest.mark.parametrize(
    ("at", "epochs", "expected"),
    [(0.5, 10, 5), (0.5, 9, 5), (0.01, 10, 1), (0.99, 10, 9), (0.3, 2, 1)],
)
def test_the_fork_leaves_at_least_one_epoch_on_both_sides(cfg, at, epochs, expected):
    cfg.train_cfg = ConfigDict(by_epoch=True, max_epochs=epochs)
    fork = fork_of(cfg, at, "L1Loss")
    assert (fork.epoch, fork.epochs) == (expected, epochs)
    assert fork.share == pytest.approx((epochs - expected) / epochs)


@pytest.mark.parametrize(
    "train", [dict(by_epoch=False, max_iters=9), dict(by_epoch=True, max_epochs=1)]
)
def test_a_training_without_epochs_cannot_fork(cfg, train):
    cfg.train_cfg = ConfigDict(train)
    with pytest.raises(ValueError, match="at least 2 epochs"):
        fork_of(cfg, 0.5, "L1Loss")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(config_variants=["slow:loss_bbox=L1Loss,optim_wrapper.optimizer.lr=1e-3"]),
            r"slow changes optim_wrapper.optimizer.lr, but only losses can change",
        ),
        (
            # Softmax has a channel for the background: 6 anchors of 4 instead of 3 channels.
            dict(config_variants=["softmax:loss_cls=CrossEntropyLoss"]),
            r"softmax cannot continue the training of L1Loss: .*cls_logits.weight is 24 x 16 x 3 x "
            r"3 in the model of the first and 18 x 16 x 3 x 3 in that of the second",
        ),
    ],
)
def test_a_variant_that_cannot_continue_the_training_is_refused(shapes, options, message):
    selection = select(shapes, ["L1Loss"], **options)
    with pytest.raises(ValueError, match=message):
        check_fork(shapes, selection.variants, selection.variants[0])


def test_variants_of_losses_only_can_fork(shapes):
    given = ["focal:loss_cls=FocalLoss(gamma=1)", "gamma:model.loss_cls.gamma=1.5"]
    selection = select(shapes, ["L1Loss", "WIoUv3Loss"], config_variants=given)
    check_fork(shapes, selection.variants, selection.variants[0])


def test_a_loss_with_parameters_cannot_fork(shapes, monkeypatch):
    shape = {"losses.loss_bbox.scale": (1,)}
    monkeypatch.setattr("det_losses.comparison.fork.check_runner", lambda cfg, variant: shape)
    variants = select(shapes, ["L1Loss"]).variants
    with pytest.raises(ValueError, match=r"has the parameter losses.loss_bbox.scale in a loss"):
        check_fork(shapes, variants, variants[0])


FORK = Fork(0.5, 4, 9, "SmoothL1Loss")


@pytest.fixture
def forked(cfg, variant):
    """The baseline is not the first of three variants; seeds 0 and 1."""
    variants = [variant("GIoULoss", 2.5), variant("SmoothL1Loss", beta=0.11), variant("L1Loss")]
    return Plan.of(cfg, ["loss_bbox"], variants, [0, 1], FORK)


class TestPlan:
    def test_the_baseline_keeps_a_checkpoint_from_which_the_others_start(
        self, cfg, forked, tmp_path
    ):
        cfg.custom_hooks = [dict(type="EMAHook")]
        runs = {run.title: run for run in forked.runs(tmp_path)}
        base, other = runs["SmoothL1Loss seed 1"], runs["L1Loss seed 1"]
        keep = dict(type="ForkHook", epoch=4, filename=FORK_FILE)
        assert (base.start, base.share) == (None, 1)
        assert base.config(cfg).custom_hooks == [dict(type="EMAHook"), keep]
        assert other.start == base.work_dir / FORK_FILE
        assert other.share == pytest.approx(5 / 9)
        assert other.config(cfg).custom_hooks == [dict(type="EMAHook")]
        assert forked.unfinished(tmp_path, 0) == pytest.approx(1 + 2 * 5 / 9)

    def test_another_fork_in_the_same_directory_is_refused(self, forked, cfg, tmp_path):
        forked.save(tmp_path)
        assert Plan.load(tmp_path) == forked
        plain = Plan.of(cfg, ["loss_bbox"], forked.variants, [0])
        assert plain.hash != forked.hash
        later = Plan.of(cfg, ["loss_bbox"], forked.variants, [0], Fork(0.6, 5, 9, "SmoothL1Loss"))
        with pytest.raises(ValueError, match=r"different config \(--fork-at: .*0.5.* -> None\)"):
            plain.added_to(Plan.load(tmp_path), tmp_path)
        with pytest.raises(ValueError, match=r"--fork-at.at: 0.5 -> 0.6; --fork-at.epoch: 4 -> 5"):
            later.added_to(Plan.load(tmp_path), tmp_path)
        assert Results(forked, tmp_path, FACTS).meta()["fork"]["epoch"] == 4

    def test_a_run_that_did_not_start_at_the_fork_is_failed(self, forked, tmp_path, finish):
        base, other = forked.runs(tmp_path)[1:3]
        for run, epoch in ((base, 4), (other, None)):
            finish(run)
            write_json(
                run.work_dir / "metrics.json",
                {**read_json(run.work_dir / "metrics.json"), "fork": epoch and {"epoch": epoch}},
            )
        assert [run.row(tmp_path)["error"] for run in (base, other)] == [
            "started after epoch 4, not from scratch as planned",
            "started from scratch, not after epoch 4 as planned",
        ]


class TestRunner:
    @pytest.fixture
    def trained(self, tmp_path, finish, forked, monkeypatch):
        """Runs end immediately, except those in ``broken``; return what started, and ``broken``."""
        started = []

        def fake(command, log, tick, *, keep_open, env):
            run = next(run for run in forked.runs(tmp_path) if run.work_dir == log.parent)
            start = Path(command[-1]) if command[-1] != "--resume" else None
            started.append((run.title, start))
            log.write_text("ValueError: broken")
            if run.title in broken:
                return 1
            if run.start is None:
                (run.work_dir / FORK_FILE).touch()
            finish(run)
            if run.start:
                record = read_json(run.work_dir / "metrics.json")
                write_json(run.work_dir / "metrics.json", {**record, "fork": {"epoch": 4}})
            return 0

        broken = []
        monkeypatch.setattr(LocalExecutor, "run", staticmethod(fake))
        return started, broken

    def execute(self, cfg, plan, folder, **options):
        rows = PlanRunner(cfg, plan, folder, 0, FACTS, **options).execute()
        return {(row["variant"], row["seed"]): row["status"] for row in rows}

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_runs_wait_for_the_checkpoint_of_the_baseline(
        self, cfg, forked, tmp_path, trained, jobs
    ):
        assert set(self.execute(cfg, forked, tmp_path, jobs=jobs).values()) == {"done"}
        started = [title for title, _ in trained[0]]
        for seed in (0, 1):
            base = started.index(f"SmoothL1Loss seed {seed}")
            assert base < min(started.index(f"{n}Loss seed {seed}") for n in ("GIoU", "L1"))
        for title, start in trained[0]:
            base = tmp_path / "runs/SmoothL1Loss" / title[-6:].replace(" ", "_") / FORK_FILE
            assert start == (None if title.startswith("Smooth") else base)

    def test_without_the_baseline_of_a_seed_its_other_runs_fail(
        self, cfg, forked, tmp_path, trained, capsys
    ):
        trained[1].append("SmoothL1Loss seed 0")
        found = self.execute(cfg, forked, tmp_path)
        assert [found[label, 0] for label in ("SmoothL1Loss", "GIoULoss", "L1Loss")] == [
            "failed"
        ] * 3
        assert {found[label, 1] for label in ("SmoothL1Loss", "GIoULoss", "L1Loss")} == {"done"}
        error = read_json(tmp_path / "results.json")["runs"][0]["error"]
        assert error.endswith("from which it starts; it is written by SmoothL1Loss seed 0")
        trained[1].clear()
        assert set(self.execute(cfg, forked, tmp_path).values()) == {"done"}

    def test_a_removed_checkpoint_is_named(self, cfg, forked, tmp_path, trained, finish):
        for run in forked.runs(tmp_path):
            if run.start is None:
                finish(run)  # and its checkpoint was deleted
        assert set(self.execute(cfg, forked, tmp_path).values()) == {"done", "failed"}
        assert trained[0] == []
        error = read_json(tmp_path / "results.json")["runs"][0]["error"]
        assert error.startswith(str(tmp_path / "runs/SmoothL1Loss/seed_0" / FORK_FILE))

    def test_a_run_with_a_checkpoint_of_its_own_resumes_from_it(
        self, cfg, forked, tmp_path, trained
    ):
        own = next(run for run in forked.runs(tmp_path) if run.title == "L1Loss seed 0")
        own.work_dir.mkdir(parents=True)
        other = next(run for run in forked.runs(tmp_path) if run.title == "L1Loss seed 1")
        other.work_dir.mkdir(parents=True)
        parts = dict.fromkeys(("meta", "optimizer", "message_hub", "state_dict"))
        torch.save(parts, own.work_dir / "epoch_5.pth")
        (other.work_dir / "epoch_5.pth").touch()  # damaged
        self.execute(cfg, forked, tmp_path)
        assert (own.title, None) in trained[0]
        assert (other.title, other.start) in trained[0]

    def test_without_time_for_the_baseline_the_others_stay_pending(
        self, cfg, forked, tmp_path, trained, capsys
    ):
        # Nine seconds are left: enough for five ninths of ten, not for all of them.
        found = self.execute(cfg, forked, tmp_path, budget=Budget(9.5, 10.0, jobs=1))
        assert set(found.values()) == {"pending"}
        assert trained[0] == []
        printed = capsys.readouterr().out
        assert "GIoULoss seed 0  not started: it starts from SmoothL1Loss seed 0" in printed

    def test_the_estimated_time_counts_forked_runs_for_their_part(self, cfg, forked, tmp_path):
        runner = PlanRunner(cfg, forked, tmp_path, 0, FACTS, budget=Budget(3600, 90.0, jobs=1))
        # Two seeds of 1 + 2 * 5 / 9 trainings are 4.2, rounded up to 5 of 90 s.
        assert "6 runs of about 1 min 30 s each (forked ones 56% of it)" in runner.forecast()
        assert "estimated time 7 min 30 s" in runner.forecast()
