import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from det_losses.comparison import runner as module
from det_losses.comparison.budget import Budget
from det_losses.comparison.process import LocalExecutor
from det_losses.comparison.runner import PlanRunner, locked

FACTS = {"config": "x", "command": "compare x", "classes": ["cat"]}


def statuses(folder):
    return [run["status"] for run in json.loads((folder / "results.json").read_text())["runs"]]


class TestPlanRunner:
    @pytest.fixture
    def trained(self, tmp_path, finish, plan, monkeypatch):
        """Runs end immediately; return the stored statuses at each start, by title of the run."""
        seen = {}

        def fake(command, log, tick, *, keep_open, env):
            run = next(run for run in plan.runs(tmp_path) if run.work_dir == log.parent)
            seen[run.title] = statuses(tmp_path)
            log.write_text("Traceback\nValueError: broken")
            if run.title == "GIoULoss seed 0":
                return 1
            finish(run)
            return 0

        monkeypatch.setattr(LocalExecutor, "run", staticmethod(fake))
        return seen

    def test_tensorboard_is_an_option_of_each_run(self, cfg, plan, tmp_path, monkeypatch):
        commands = []
        monkeypatch.setattr(
            LocalExecutor, "run", lambda self, command, *_, **__: commands.append(command) or 1
        )
        PlanRunner(cfg, plan, tmp_path, 0, FACTS, tensorboard=True).execute()
        assert [command[-1] for command in commands] == ["--tensorboard"] * 4

    def test_results_are_written_after_every_run(self, cfg, plan, tmp_path, trained):
        PlanRunner(cfg, plan, tmp_path, 0, FACTS).execute()
        assert trained == {
            "SmoothL1Loss seed 0": ["pending", "pending", "pending", "pending"],
            "GIoULoss seed 0": ["done", "pending", "pending", "pending"],
            "SmoothL1Loss seed 1": ["done", "failed", "pending", "pending"],
            "GIoULoss seed 1": ["done", "failed", "done", "pending"],
        }
        stored = json.loads((tmp_path / "results.json").read_text())
        assert stored["runs"][1]["error"].splitlines() == [
            "exit status 1; last lines of the log:",
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

    def test_repeating_the_command_trains_the_unfinished_runs(self, cfg, plan, tmp_path, trained):
        PlanRunner(cfg, plan, tmp_path, 0, FACTS).execute()
        trained.clear()
        PlanRunner(cfg, plan, tmp_path, 0, FACTS).execute()
        assert list(trained) == ["GIoULoss seed 0"]

    def test_a_resumed_run_says_nothing_about_the_time_of_a_whole_one(
        self, cfg, plan, tmp_path, trained, monkeypatch
    ):
        # The first run resumes and takes 10 s; whole runs take 100 s.
        first = plan.runs(tmp_path)[0].work_dir
        monkeypatch.setattr(
            module, "newest_checkpoint", lambda cfg: (Path(cfg.work_dir) == first or None, [])
        )
        known = []

        class Display(module.RunDisplay):
            elapsed = property(lambda self: 10.0 if self._file.parent == first else 100.0)

            def __init__(self, title, work_dir, finished, *args, **kwargs):
                known.append(list(finished))
                super().__init__(title, work_dir, finished, *args, **kwargs)

        monkeypatch.setattr(module, "RunDisplay", Display)
        budget = Budget(10_000, run_seconds=60, jobs=1)
        PlanRunner(cfg, plan, tmp_path, 0, FACTS, budget=budget).execute()
        assert known == [[], [], [], [100.0]]  # the second run fails
        assert budget.run_seconds == 100

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            ("removed", "exit status 1; the log cannot be read"),
            ("disk full", "OSError: [Errno 28] No space left on device"),
            ("a file", "FileExistsError: [Errno 17]"),  # so its status cannot be stored there
        ],
    )
    def test_a_fault_of_one_run_does_not_end_the_others(
        self, cfg, plan, tmp_path, finish, monkeypatch, capsys, fault, message
    ):
        def fake(command, log, tick, *, keep_open, env):
            run = next(run for run in plan.runs(tmp_path) if run.work_dir == log.parent)
            if run.title == "GIoULoss seed 0":
                if fault == "disk full":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                shutil.rmtree(log.parent)
                return 1
            finish(run)
            return 0

        monkeypatch.setattr(LocalExecutor, "run", staticmethod(fake))
        if fault == "a file":
            (tmp_path / "runs/GIoULoss").mkdir(parents=True)
            (tmp_path / "runs/GIoULoss/seed_0").touch()
        rows = PlanRunner(cfg, plan, tmp_path, 0, FACTS).execute()
        assert [row["status"] for row in rows] == ["done", "failed", "done", "done"]
        assert message in rows[1]["error"]
        assert "GIoULoss seed 0  FAILED" in capsys.readouterr().out
        assert statuses(tmp_path) == [row["status"] for row in rows]

    def test_results_that_cannot_be_written_for_a_while_do_not_end_the_runs(
        self, cfg, plan, tmp_path, trained, monkeypatch, capsys
    ):
        write, calls = module.Results.write, []

        def full_disk(results):
            calls.append(results)
            if 2 <= len(calls) <= 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results.json")
            return write(results)

        monkeypatch.setattr(module.Results, "write", full_disk)
        PlanRunner(cfg, plan, tmp_path, 0, FACTS).execute()
        assert statuses(tmp_path) == ["done", "failed", "done", "done"]
        assert capsys.readouterr().out.count("cannot be written yet: [Errno 28] No space left") == 2

    @pytest.mark.parametrize("left", [0.5, 0.0])
    @pytest.mark.parametrize(
        "name", ["plan.json", "results.json", "runs/SmoothL1Loss/seed_0/metrics.json"]
    )
    def test_a_damaged_file_is_rebuilt(self, cfg, plan, tmp_path, trained, name, left):
        PlanRunner(cfg, plan, tmp_path, 0, FACTS).execute()
        trained.clear()
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(left * len(whole))])
        # The command names one loss and one seed only. The others are known from the other files.
        fewer = type(plan).of(cfg, ["loss_bbox"], plan.variants[:1], [0])
        rows = PlanRunner(cfg, fewer, tmp_path, 0, FACTS).execute()
        assert [row["status"] for row in rows] == ["done", "failed", "done", "done"]
        assert list(trained) == (["SmoothL1Loss seed 0"] if "metrics" in name else [])
        notes = json.loads((tmp_path / "results.json").read_text())["meta"]["notes"]
        assert any("was damaged and was rebuilt" in note for note in notes) == (
            name == "results.json"
        )
        if name != "results.json":
            assert (tmp_path / name).read_bytes() == whole

    def test_a_finished_run_whose_folder_was_removed_is_trained_again(
        self, cfg, plan, tmp_path, trained, capsys
    ):
        PlanRunner(cfg, plan, tmp_path, 0, FACTS).execute()
        shutil.rmtree(tmp_path / "runs" / "SmoothL1Loss" / "seed_1")
        trained.clear()
        capsys.readouterr()
        rows = PlanRunner(cfg, plan, tmp_path, 0, FACTS).execute()
        assert list(trained) == ["GIoULoss seed 0", "SmoothL1Loss seed 1"]  # the first had failed
        assert [row["status"] for row in rows] == ["done", "failed", "done", "done"]
        assert "SmoothL1Loss seed 1  was finished, but" in capsys.readouterr().out

    def test_a_damaged_plan_of_another_config_is_refused(self, cfg, plan, tmp_path, trained):
        PlanRunner(cfg, plan, tmp_path, 0, FACTS).execute()
        (tmp_path / "plan.json").write_text("{")
        cfg.model.num_convs = 3
        other = type(plan).of(cfg, ["loss_bbox"], plan.variants, [0])
        with pytest.raises(
            ValueError, match=r"different config, .* plan\.json is missing or damag"
        ):
            PlanRunner(cfg, other, tmp_path, 0, FACTS)
        # Without results.json too, the runs are known by their own configs.
        (tmp_path / "results.json").unlink()
        with pytest.raises(
            ValueError, match=r"different run \(model.num_convs: 2 -> 3\); remove its"
        ):
            PlanRunner(cfg, other, tmp_path, 0, FACTS)

    def test_results_keep_what_an_earlier_command_trained(self, cfg, plan, tmp_path, trained):
        PlanRunner(cfg, plan, tmp_path, 0, FACTS).execute()
        fewer = type(plan).of(cfg, ["loss_bbox"], plan.variants[:1], [0])
        runner = PlanRunner(cfg, fewer, tmp_path, 0, FACTS)
        assert [run.title for run in runner.runs] == ["SmoothL1Loss seed 0"]
        assert len(runner.results.write()) == 4
        assert runner.results.meta()["seeds"] == [0, 1]

    def test_a_run_is_the_users_own_train_command_on_its_config(
        self, cfg, plan, tmp_path, monkeypatch
    ):
        commands = []
        monkeypatch.setattr(
            LocalExecutor, "run", lambda self, command, *_, **__: commands.append(command) or 1
        )
        monkeypatch.setattr(module, "_tail", lambda *a: "")
        PlanRunner(cfg, plan, tmp_path, 0, FACTS).execute()
        run = tmp_path / "runs" / "GIoULoss" / "seed_0"
        expected = ["-m", "det_losses", "train", str(run / "config.py"), "--work-dir", str(run)]
        assert commands[1][1:] == [*expected, "--no-plan", "--resume"]
        written = Config.fromfile(Path(commands[1][4]))
        assert written.model.loss_bbox == {"type": "GIoULoss", "loss_weight": 2.5}
        assert written.randomness.seed == 0

    def test_jobs_run_at_the_same_time_on_their_share_of_the_cores(
        self, cfg, plan, tmp_path, finish, monkeypatch
    ):
        # Two runs wait for each other at a barrier: one alone would wait in vain.
        barrier, threads = threading.Barrier(2, timeout=10), set()

        def fake(command, log, tick, *, keep_open, env):
            barrier.wait()
            threads.add(env["OMP_NUM_THREADS"])
            finish(next(run for run in plan.runs(tmp_path) if run.work_dir == log.parent))
            return 0

        monkeypatch.setattr(LocalExecutor, "run", staticmethod(fake))
        monkeypatch.setattr(module.os, "cpu_count", lambda: 8)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        PlanRunner(cfg, plan, tmp_path, 0, FACTS, jobs=2).execute()
        assert threads == {"4"}
        assert statuses(tmp_path) == ["done"] * 4

    def test_an_interrupt_stops_all_running_runs(self, cfg, plan, tmp_path, monkeypatch):
        both, begun, ended = threading.Barrier(2, timeout=10), [], []

        def fake(command, log, tick, *, keep_open, env):
            begun.append(log.parent)
            if both.wait(timeout=1) == 0:
                raise KeyboardInterrupt
            try:
                for _ in range(1000):
                    tick()
                    time.sleep(0.01)
            except KeyboardInterrupt:
                ended.append(log.parent)
                raise

        monkeypatch.setattr(LocalExecutor, "run", staticmethod(fake))
        with pytest.raises(KeyboardInterrupt):
            PlanRunner(cfg, plan, tmp_path, 0, FACTS, jobs=2).execute()
        assert (len(begun), len(ended)) == (2, 1)
        assert statuses(tmp_path) == ["interrupted"] * 2 + ["pending"] * 2


class TestLock:
    def test_a_second_comparison_in_the_same_directory_is_refused(self, tmp_path):
        (tmp_path / "link").symlink_to("absent")
        with pytest.raises(ValueError, match="link is a link to absent, which is missing"):
            with locked(tmp_path / "link"):
                pass
        with locked(tmp_path), pytest.raises(ValueError, match="in use by another comparison"):
            with locked(tmp_path):
                pass
        with locked(tmp_path):
            pass

    def test_a_run_of_a_killed_comparison_keeps_the_lock(self, tmp_path):
        with locked(tmp_path) as lock:
            run = subprocess.Popen(
                [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,)
            )
        with pytest.raises(ValueError, match="or by a run of one that was killed"):
            with locked(tmp_path):
                pass
        run.communicate(b"\n", timeout=10)
        with locked(tmp_path):
            pass
