"""Train the runs of a plan, each in its own process: start, display, stop, store the results."""

import contextlib
import fcntl
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from mmengine.config import Config

from det_losses.comparison.budget import Budget
from det_losses.comparison.display import RunDisplay, print_line
from det_losses.comparison.foreign import RunData, training_run, write_record
from det_losses.comparison.fork import FORK_FILE
from det_losses.comparison.interim import InterimReport
from det_losses.comparison.plan import STATUS_FILE, Plan, PlannedRun
from det_losses.comparison.preflight import evaluator
from det_losses.comparison.process import INTERVAL, Executor, LocalExecutor
from det_losses.comparison.results import Results
from det_losses.comparison.trainer import (
    DETECTIONS_FILE,
    EngineTrainer,
    Trainer,
    TrainingRun,
    build_trainer,
)
from det_losses.config_diff import describe
from det_losses.engine.checkpoint import newest_checkpoint
from det_losses.engine.config_text import config_text
from det_losses.engine.run import (
    CONFIG_FILE,
    METRICS_FILE,
    changes_since,
    is_finished,
    read_metrics,
)
from det_losses.errors import InputError, UserError, counted
from det_losses.files import check_work_dir, is_damaged, read_whole_json, write_text
from det_losses.report.formats import duration

LOG_FILE = "output.log"
BUDGET_NOTE = (
    "The time budget ran out before all planned runs were trained. Repeat the command with a new "
    "budget to train the rest."
)


class BudgetSpent(Exception):
    """The time budget is over."""


class PlanRunner:
    """Trains the unfinished runs of a plan.

    Args:
        cfg: the config that all runs share.
        requested: the plan of this command. Other variants or seeds of earlier commands in the same
            directory stay in the results.
        root: the directory of the comparison.
        lock: file descriptor of the directory's lock, inherited by the runs.
        facts: see :class:`~det_losses.comparison.plan.Results`.
        jobs: number of parallel runs, which share the cores.
        budget: the time budget; None: unlimited.
        report: rewrites the report after each run; None: there is no report before the end.
        tensorboard: whether each run writes its scalars for TensorBoard too.
        executor: runs the commands; the caller closes it. None: one of its own, local.
        data: the data as files, for another program; None: this package's engine trains.

    Attributes:
        plan: the plan of the directory, including earlier commands.
        runs: the runs of this command.
        results: writer of the results of the plan.
        run_seconds: estimated time of a run, used until one has finished; None: unknown.

    Raises:
        InputError: the directory contains a comparison with a different config or ground truth.
    """

    def __init__(
        self,
        cfg: Config,
        requested: Plan,
        root: Path,
        lock: int,
        facts: dict[str, Any],
        jobs: int = 1,
        budget: Budget | None = None,
        report: InterimReport | None = None,
        tensorboard: bool = False,
        executor: Executor | None = None,
        data: RunData | None = None,
    ) -> None:
        stored = requested.known(root)
        self.plan = requested.added_to(stored, root) if stored else requested
        self.runs = requested.runs(root)
        if stored is None:
            for run in self.runs:
                _check_config(run, cfg)
        self.results = Results(self.plan, root, facts)
        self.run_seconds: float | None = None
        if BUDGET_NOTE in self.results.notes:
            self.results.notes.remove(BUDGET_NOTE)  # it concerns an earlier command
        self._cfg, self._root, self._lock = cfg, root, lock
        self._jobs, self._budget = jobs, budget
        self._report, self._tensorboard, self._data = report, tensorboard, data
        self._executor = executor or LocalExecutor()
        self._own_executor = executor is None
        self._stop = threading.Event()
        # Seconds per whole training, of the runs that this command trained from their start to the
        # end: a resumed run trains only the rest.
        self._durations: list[float] = []
        self._choosing = threading.Lock()
        self._expected: set[Path] = set()  # checkpoints that runs of this command will write

    def execute(self) -> list[dict[str, Any]]:
        """Train the unfinished runs and write the results after each of them.

        When the budget runs out, no further run is started and running ones are terminated; a later
        command resumes them.

        Returns:
            The rows of the results.

        Raises:
            KeyboardInterrupt: running trainings were stopped and results were written.
        """
        if self._data:
            self._data.write()
        self.plan.save(self._root)
        self.results.write()
        todo = []
        for index, run in enumerate(self.runs):
            title = f"[{index + 1}/{len(self.runs)}] {run.title}"
            if is_finished(run.work_dir) and not _reopened(run, title):
                print_line(sys.stdout, f"{title}  {_outcome(run)} (already finished)")
            else:
                self._say_lost(run, title)
                todo.append((title, run))
        self._expected = {run.work_dir / FORK_FILE for _, run in todo if not run.start}
        with ThreadPoolExecutor(self._jobs) as pool:
            futures = [pool.submit(self._train_next, todo) for _ in list(todo)]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                for future in futures:
                    if future.done():
                        future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise
            finally:
                if self._report:
                    self._report.stop()  # a final one follows, or none
                if self._own_executor:
                    self._executor.close()
        if self._budget and self._durations:
            self._budget.run_seconds = self._seconds_of_a_run()
        return self.results.write()

    def _say_lost(self, run: PlannedRun, title: str) -> None:
        """Print that a finished run lost its record, or all of its files."""
        record = run.work_dir / METRICS_FILE
        if is_damaged(record):
            print_line(sys.stdout, f"{title}  {record} is damaged: evaluated again")
        elif (
            (run.variant.label, run.seed) in self.results.done_before
            and not record.exists()
            and not any(run.work_dir.glob("*.pth"))
        ):
            print_line(sys.stdout, f"{title}  was finished, but {record} is missing: run again")

    @property
    def todo(self) -> list[PlannedRun]:
        """The runs of this command that are not finished."""
        return [run for run in self.runs if not is_finished(run.work_dir)]

    def forecast(self) -> str:
        """Return one line with the seeds, the number of runs and the estimated time."""
        todo = self.todo
        seeds = ", ".join(map(str, dict.fromkeys(run.seed for run in self.runs)))
        text = f"seeds {seeds}: {counted(len(todo), 'run')}"
        each = self._expected_seconds()
        if not todo:
            return f"seeds {seeds}: all {counted(len(self.runs), 'run')} are finished"
        if each is None:
            return f"{text}; the estimated time is shown once the first one trains"
        whole = sum(run.share for run in todo)  # in whole trainings
        total = duration(math.ceil(whole / self._jobs) * each)
        forked = f" (forked ones {self.plan.fork.share:.0%} of it)" if self.plan.fork else ""
        text += f" of about {duration(each)} each{forked}, {self._jobs} in parallel"
        text += f"; estimated time {total}"
        return f"{text} of {duration(self._budget.seconds)}" if self._budget else text

    def _expected_seconds(self) -> float | None:
        """Return the mean time of a whole training, or the estimate."""
        estimate = self._budget.run_seconds if self._budget else self.run_seconds
        return self.plan.seconds_per_run(self._root) or estimate

    def _seconds_of_a_run(self) -> float | None:
        """Return the mean time of the finished runs, by their own records if all were resumed."""
        if self._durations:
            return sum(self._durations) / len(self._durations)
        return self.plan.seconds_per_run(self._root)

    def _train_next(self, todo: list[tuple[str, PlannedRun]]) -> None:
        """Take the first run that can start from the list, and train it.

        A forked run waits until its checkpoint exists, or can no longer be expected.
        """
        while not self._stop.is_set():
            with self._choosing:
                found = next((item for item in todo if self._can_start(item[1])), None)
                if found:
                    todo.remove(found)
                following = math.ceil((1 + sum(run.share for _, run in todo)) / self._jobs) - 1
            if found:
                title, run = found
                try:
                    self._train(run, title, following)
                finally:
                    self._expected.discard(run.work_dir / FORK_FILE)
                return
            self._stop.wait(INTERVAL)

    def _can_start(self, run: PlannedRun) -> bool:
        return run.start not in self._expected or run.start.is_file()

    def _train(self, run: PlannedRun, title: str, following: int) -> None:
        """Train a run, unless the comparison is stopping. A fault of its files ends only this run.

        Its directory may have been removed, or the disk may be full.
        """
        if self._stop.is_set():
            return
        try:
            self._train_in_directory(run, title, following)
        except OSError as error:
            reason = f"{type(error).__name__}: {error}"
            self.results.failed[run.work_dir] = reason
            with contextlib.suppress(OSError):
                run.set_status("failed", reason)
            print_line(sys.stdout, f"{title}  FAILED: {error}")
            self._store()

    def _store(self) -> None:
        """Write the results; where that is impossible, the runs go on and write them later."""
        try:
            self.results.write()
        except OSError as error:
            print_line(sys.stdout, f"the results cannot be written yet: {error}")

    def _train_in_directory(self, run: PlannedRun, title: str, following: int) -> None:
        if self._budget and not self._budget.allows_run(self._durations, run.share):
            print_line(sys.stdout, f"{title}  not started: not enough of the time budget is left")
            self.results.note(BUDGET_NOTE)
            return
        resumed = newest_checkpoint(Config({"work_dir": str(run.work_dir)}))[0] is not None
        start = None if resumed else run.start
        if start and not start.is_file():
            self._give_up(run, title)
            return
        log = run.work_dir / LOG_FILE
        begin = log.stat().st_size if log.is_file() else 0
        told, trainer = self._trainer_of(run, start, resumed or log.is_file())
        resumed = resumed or (run.foreign and told.resume)
        shown = log if run.foreign else None
        display = RunDisplay(
            title, run.work_dir, self._durations, following, live=self._jobs == 1, log=shown
        )
        display.say(f"started, log: {log}")
        try:
            status = self._watch(trainer.command(told), trainer.environment(told), log, display)
            fault = self._recorded(told, trainer, display) if run.foreign and not status else None
        except BudgetSpent:
            run.set_status("interrupted", "the time budget ran out")
            display.close("stopped: the time budget ran out")
            self.results.note(BUDGET_NOTE)
        except KeyboardInterrupt:
            self._stop.set()
            run.set_status("interrupted")
            display.close(_outcome(run) if is_finished(run.work_dir) else "interrupted")
            raise
        else:
            if is_finished(run.work_dir):
                if not resumed:
                    self._durations.append(display.elapsed / run.share)
                display.close(f"{_outcome(run)} in {duration(display.elapsed)}")
            else:
                run.set_status("failed", fault or _tail(log, begin, status))
                display.close(f"FAILED ({fault or _ended(status)}), log: {log}")
        finally:
            self._store()
        each = self._seconds_of_a_run()
        if self._report and each is not None:
            self._report.request(following * each)

    def _trainer_of(
        self, run: PlannedRun, start: Path | None, resume: bool
    ) -> tuple[TrainingRun, Trainer]:
        """Write the config of a run that starts; return what its trainer is told, and the trainer.

        A result file of an earlier attempt is removed, because it would be taken for a new one.
        """
        config, file = run.config(self._cfg), run.work_dir / CONFIG_FILE
        if not file.is_file():
            write_text(file, config_text(config))
        told = training_run(run, config, self._data, resume=resume, start=start)
        if not run.foreign:
            return told, EngineTrainer(self._tensorboard)
        trainer = build_trainer(config)
        trainer.detections(told).unlink(missing_ok=True)
        return told, trainer

    def _recorded(self, told: TrainingRun, trainer: Trainer, display: RunDisplay) -> str | None:
        """Write the record of a run of another program; return why that is impossible."""
        try:
            for remark in write_record(told, trainer, evaluator(told.config), display.elapsed):
                self.results.note(f"{told.label} seed {told.seed}: {remark}")
        except (UserError, OSError) as error:
            return str(error)
        return None

    def _give_up(self, run: PlannedRun, title: str) -> None:
        """Record that a forked run cannot start, unless its baseline's run is still to be trained.

        A run that was stopped, or not started for lack of time, writes the checkpoint later.
        """
        source = f"{self.plan.fork.baseline} seed {run.seed}"
        ended = read_whole_json(run.start.parent / STATUS_FILE) or {}
        if is_finished(run.start.parent) or ended.get("status") == "failed":
            reason = f"{run.start} is missing, from which it starts; it is written by {source}"
            run.set_status("failed", reason)
            print_line(sys.stdout, f"{title}  FAILED: {reason}")
        else:
            print_line(sys.stdout, f"{title}  not started: it starts from {source}")
        self._store()

    def _watch(
        self, command: Sequence[str], own: Mapping[str, str], log: Path, display: RunDisplay
    ) -> int:
        """Run a command; stop it on an interrupt, if another run raises or at the budget's end."""

        def tick() -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            if self._budget and self._budget.left <= 0:
                raise BudgetSpent
            display.update()
            if self._report:
                self._report.tick()

        env = {**self._environment(), **own}
        return self._executor.run(command, log, tick, keep_open=self._lock, env=env)

    def _environment(self) -> dict[str, str]:
        """Return the number of threads of a run, unless the user has set it.

        The cores are divided among parallel runs; more threads than cores would slow them down.
        """
        if self._jobs == 1 or "OMP_NUM_THREADS" in os.environ:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self._jobs))}


def _check_config(run: PlannedRun, cfg: Config) -> None:
    """Check that a run in a directory without a plan is the one that this command would train.

    Raises:
        InputError: its config differs, or cannot be read.
    """
    file = run.work_dir / CONFIG_FILE
    lines = changes_since(file, run.config(cfg)) if file.is_file() else []
    if lines:
        raise InputError(
            f"{file} is of a different run ({describe(lines)}); remove its folder, or give another "
            "--work-dir"
        )


def _reopened(run: PlannedRun, title: str) -> bool:
    """Reopen a finished run whose detections are lost, if its checkpoint can be evaluated again.

    That of another program is trained again.
    """
    lost = run.work_dir / read_metrics(run.work_dir).get("detections", DETECTIONS_FILE)
    trained = [*run.work_dir.glob("epoch_*.pth"), *run.work_dir.glob("iter_*.pth")]
    if not (trained or run.foreign) or read_whole_json(lost) is not None:
        return False
    (run.work_dir / METRICS_FILE).unlink()
    again = "trained" if run.foreign else "evaluated"
    print_line(sys.stdout, f"{title}  {lost} is missing or damaged: {again} again")
    return True


def _outcome(run: PlannedRun) -> str:
    value = (read_metrics(run.work_dir).get("metrics") or {}).get("AP")
    return "AP n/a" if value is None else f"AP {100 * value:.1f}"


def _tail(log: Path, begin: int, status: int, lines: int = 8) -> str:
    try:
        with log.open("rb") as file:
            file.seek(begin)
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"{_ended(status)}; the log cannot be read ({error})"
    last = [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join([f"{_ended(status)}; last lines of the log:", *last])


def _ended(status: int) -> str:
    """Return how a process ended: its exit status, or the signal that killed it."""
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"killed by {name}" + (" (out of memory?)" if -status == signal.SIGKILL else "")


@contextlib.contextmanager
def locked(root: Path) -> Iterator[int]:
    """Lock the directory of a comparison and yield the file descriptor of the lock.

    Runs inherit the descriptor and with it the lock. If the comparison is killed, the directory
    stays locked until its running trainings have ended.

    Raises:
        InputError: another comparison, or a run of one that was killed, has the lock; or ``root``
            is a file.
    """
    check_work_dir(root)
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{root} is in use by another comparison, or by a run of one that was killed; "
                "wait until it ends, or give another --work-dir"
            ) from None
        yield file.fileno()


def is_running(root: Path) -> bool:
    """Return whether a comparison, or a run of one that was killed, has the lock of a directory."""
    file = root / ".lock"
    if not file.is_file():
        return False
    with file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
