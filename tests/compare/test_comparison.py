import json
import threading
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from det_losses.compare import comparison as module
from det_losses.compare.comparison import Comparison

FACTS = {
    "config": "x",
    "command": "compare x",
    "classes": ["cat"],
    "images": {"train": 1, "val": 1},
    "val_boxes": {"all": 1, "small": 1, "medium": 0, "large": 0, "by_class": {"cat": 1}},
    "versions": {},
    "hardware": {"gpus": [], "cpu": "c", "threads": 1, "memory": "m"},
}


@pytest.fixture
def trained(tmp_path, finish, plan, monkeypatch):
    """Runs end at once; gives the results.json as each run found it, by its name."""
    seen = {}

    def fake(command, log, tick, *, keep_open, env):
        run = next(run for run in plan.runs(tmp_path) if run.work_dir == log.parent)
        stored = json.loads((tmp_path / "results.json").read_text())["runs"]
        seen[run.title] = [row["status"] for row in stored]
        log.write_text("Traceback\nValueError: broken")
        if run.title == "GIoULoss seed 0":
            return 1
        finish(run)
        return 0

    monkeypatch.setattr(module, "run_process", fake)
    return seen


def test_results_are_written_after_every_run(cfg, plan, tmp_path, trained):
    Comparison(cfg, plan, tmp_path, 0, FACTS).execute()
    assert trained == {
        "SmoothL1Loss seed 0": ["pending", "pending", "pending", "pending"],
        "GIoULoss seed 0": ["done", "pending", "pending", "pending"],
        "SmoothL1Loss seed 1": ["done", "failed", "pending", "pending"],
        "GIoULoss seed 1": ["done", "failed", "done", "pending"],
    }
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["runs"][1]["error"].splitlines() == [
        "exit status 1; the log's last lines:",
        "Traceback",
        "ValueError: broken",
    ]
    assert stored["meta"]["variants"]["GIoULoss"] == {
        "changes": {"model.loss_bbox": {"type": "GIoULoss", "loss_weight": 2.5}},
        "source": "source of GIoULoss",
        "factors": {"loss_bbox": "GIoULoss"},
        "weight": {"how": "published", "multiple": 1.0},
    }
    assert {"started", "finished", "seeds", "hash", "command"} <= set(stored["meta"])


def test_the_same_again_trains_what_is_not_finished(cfg, plan, tmp_path, trained):
    Comparison(cfg, plan, tmp_path, 0, FACTS).execute()
    trained.clear()
    Comparison(cfg, plan, tmp_path, 0, FACTS).execute()
    assert list(trained) == ["GIoULoss seed 0"]


def test_results_keep_what_an_earlier_command_trained(cfg, plan, tmp_path, trained):
    Comparison(cfg, plan, tmp_path, 0, FACTS).execute()
    fewer = type(plan).of(cfg, ["loss_bbox"], plan.variants[:1], [0])
    meta, rows = Comparison(cfg, fewer, tmp_path, 0, FACTS).write()
    assert len(rows) == 4
    assert meta["seeds"] == [0, 1]


def test_a_run_is_the_users_own_train_command_on_its_config(cfg, plan, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(module, "run_process", lambda command, *a, **k: commands.append(command))
    monkeypatch.setattr(module, "_tail", lambda *a: "")
    Comparison(cfg, plan, tmp_path, 0, FACTS).execute()
    run = tmp_path / "runs" / "GIoULoss" / "seed_0"
    expected = ["-m", "det_losses", "train", str(run / "config.py"), "--work-dir", str(run)]
    assert commands[1][1:] == [*expected, "--resume"]
    written = Config.fromfile(Path(commands[1][4]))
    assert written.model.loss_bbox == {"type": "GIoULoss", "loss_weight": 2.5}
    assert written.randomness.seed == 0


def test_jobs_run_at_the_same_time_on_their_share_of_the_cores(
    cfg, plan, tmp_path, finish, monkeypatch
):
    # Two runs wait for each other at a barrier: one alone would wait in vain.
    barrier, threads = threading.Barrier(2, timeout=10), set()

    def fake(command, log, tick, *, keep_open, env):
        barrier.wait()
        threads.add(env["OMP_NUM_THREADS"])
        finish(next(run for run in plan.runs(tmp_path) if run.work_dir == log.parent))
        return 0

    monkeypatch.setattr(module, "run_process", fake)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    Comparison(cfg, plan, tmp_path, 0, FACTS, jobs=2).execute()
    assert threads == {"4"}
    stored = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert [run["status"] for run in stored] == ["done"] * 4


def test_an_interrupt_ends_every_run_under_way(cfg, plan, tmp_path, monkeypatch):
    started, ended = threading.Barrier(2, timeout=10), []

    def fake(command, log, tick, *, keep_open, env):
        if started.wait() == 0:
            raise KeyboardInterrupt
        try:
            for _ in range(1000):
                tick()
                time.sleep(0.01)
        except KeyboardInterrupt:
            ended.append(log.parent)
            raise
        return 0

    monkeypatch.setattr(module, "run_process", fake)
    with pytest.raises(KeyboardInterrupt):
        Comparison(cfg, plan, tmp_path, 0, FACTS, jobs=2).execute()
    assert len(ended) == 1
    stored = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert [run["status"] for run in stored] == ["interrupted"] * 2 + ["pending"] * 2
