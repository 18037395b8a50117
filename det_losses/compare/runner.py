"""Training the runs of a plan, one process each: start, show, stop, and what they leave."""

import contextlib
import fcntl
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TextIO

from mmengine.config import Config

from det_losses.compare.budget import Budget
from det_losses.compare.plan import Plan, PlannedRun, Results
from det_losses.engine.config import config_text
from det_losses.engine.progress import PROGRESS_FILE
from det_losses.engine.run import CONFIG_FILE, is_finished, read_metrics
from det_losses.errors import InputError
from det_losses.files import read_json, write_text
from det_losses.paths import import_root
from det_losses.report.formats import counted, duration

LOG_FILE = "output.log"
BUDGET_NOTE = (
    "The time budget ended before all planned runs; the same command with a new budget continues."
)
_GRACE = 20.0  # seconds that a stopped run gets to end its workers
_FEW_EPOCHS = 30  # output to a file has a line for each epoch up to here, else one each tenth


class BudgetSpent(Exception):
    """The time that the command may take is over."""


class PlanRunner:
    """Trains those runs of a plan that are not finished.

    Args:
        cfg: the config that all runs share.
        asked: the plan of this command; further variants or seeds of an earlier command in the
            same directory stay in the results.
        root: the directory of the comparison.
        lock: file descriptor of the directory's lock, which the runs inherit.
        facts: see :class:`~det_losses.compare.plan.Results`.
        jobs: how many runs train at the same time; they share the cores.
        budget: the time that the command may take; None is any.

    Attributes:
        plan: the plan of the directory, with what earlier commands trained.
        runs: the runs of this command.
        results: what is written of the plan.

    Raises:
        InputError: the directory holds a comparison on another config, or evaluated otherwise.
    """

    def __init__(
        self,
        cfg: Config,
        asked: Plan,
        root: Path,
        lock: int,
        facts: dict[str, Any],
        jobs: int = 1,
        budget: Budget | None = None,
    ) -> None:
        stored = Plan.load(root)
        self.plan = asked.added_to(stored, root) if stored else asked
        self.runs = asked.runs(root)
        self.results = Results(self.plan, root, facts)
        if BUDGET_NOTE in self.results.notes:
            self.results.notes.remove(BUDGET_NOTE)  # it was about the command before
        self._cfg, self._root, self._lock = cfg, root, lock
        self._jobs, self._budget = jobs, budget
        self._stop = threading.Event()
        self._durations: list[float] = []

    def execute(self) -> list[dict[str, Any]]:
        """Train what is not finished; results are written after every run.

        At the end of a budget no run is started any more, and those that train are stopped in
        order: a later command continues them.

        Returns:
            The rows of the results.

        Raises:
            KeyboardInterrupt: after the runs that trained were stopped and results were written.
        """
        self.plan.save(self._root)
        self.results.write()
        todo = []
        for index, run in enumerate(self.runs):
            title = f"[{index + 1}/{len(self.runs)}] {run.title}"
            if is_finished(run.work_dir):
                print(f"{title}  {_outcome(run)} (finished before)")
            else:
                todo.append((title, run))
        with ThreadPoolExecutor(self._jobs) as pool:
            futures = []
            for index, (title, run) in enumerate(todo):
                after = max(0, math.ceil((len(todo) - index) / self._jobs) - 1)
                futures.append(pool.submit(self._train, run, title, after))
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                for future in futures:
                    if future.done():
                        future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        if self._budget and self._durations:
            self._budget.run_seconds = sum(self._durations) / len(self._durations)
        return self.results.write()

    @property
    def todo(self) -> list[PlannedRun]:
        """The runs of this command that are not finished."""
        return [run for run in self.runs if not is_finished(run.work_dir)]

    def forecast(self) -> str:
        """Return the plan in a sentence: how many runs, how long, which seeds."""
        todo = self.todo
        seeds = ", ".join(map(str, dict.fromkeys(run.seed for run in self.runs)))
        text = f"seeds {seeds}: {counted(len(todo), 'run')}"
        each = self._expected_seconds()
        if not todo:
            return f"seeds {seeds}: all {counted(len(self.runs), 'run')} are finished"
        if each is None:
            return f"{text}; the time for all is shown when the first one trains"
        total = duration(math.ceil(len(todo) / self._jobs) * each)
        text += f" of about {duration(each)}, {self._jobs} at a time, end in about {total}"
        return f"{text} of the {duration(self._budget.seconds)} given" if self._budget else text

    def _expected_seconds(self) -> float | None:
        """Return the mean time of the finished runs, or what was measured for the budget."""
        records = [read_metrics(run.work_dir) for run in self.plan.runs(self._root)]
        known = [record["train_seconds"] for record in records if record.get("train_seconds")]
        if known:
            return sum(known) / len(known)
        return self._budget.run_seconds if self._budget else None

    def _train(self, run: PlannedRun, title: str, after: int) -> None:
        if self._stop.is_set():
            return
        if self._budget and not self._budget.allows_run(self._durations):
            _print_line(sys.stdout, f"{title}  not started: too little of the budget is left")
            self.results.note(BUDGET_NOTE)
            return
        config, log = run.work_dir / CONFIG_FILE, run.work_dir / LOG_FILE
        if not config.is_file():
            write_text(config, config_text(run.config(self._cfg)))
        begin = log.stat().st_size if log.is_file() else 0
        display = RunDisplay(title, run.work_dir, self._durations, after, live=self._jobs == 1)
        display.say(f"started, log in {log}")
        try:
            status = self._watch(train_command(config, run.work_dir), log, display)
        except BudgetSpent:
            run.set_status("interrupted", "the budget ended")
            display.close("stopped: the budget is spent")
            self.results.note(BUDGET_NOTE)
        except KeyboardInterrupt:
            self._stop.set()
            run.set_status("interrupted")
            display.close(_outcome(run) if is_finished(run.work_dir) else "interrupted")
            raise
        else:
            if is_finished(run.work_dir):
                self._durations.append(display.elapsed)
                display.close(f"{_outcome(run)} in {duration(display.elapsed)}")
            else:
                run.set_status("failed", _tail(log, begin, status))
                display.close(f"FAILED, see {log}")
        finally:
            self.results.write()

    def _watch(self, command: Sequence[str], log: Path, display: "RunDisplay") -> int:
        """Run a command; end it when the user, the budget or another run's error says so."""

        def tick() -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            if self._budget and self._budget.left <= 0:
                raise BudgetSpent
            display()

        return run_process(command, log, tick, keep_open=self._lock, env=self._threads())

    def _threads(self) -> dict[str, str]:
        """Share out the cores; with more threads than cores the runs would wait for each other."""
        if self._jobs == 1 or "OMP_NUM_THREADS" in os.environ:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self._jobs))}


def _outcome(run: PlannedRun) -> str:
    value = read_metrics(run.work_dir)["metrics"].get("AP")
    return "AP n/a" if value is None else f"AP {value:.3f}"


def _tail(log: Path, begin: int, status: int, lines: int = 8) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        text = file.read().decode("utf-8", "replace")
    last = [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
    ended = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return "\n".join([f"{ended}; the log's last lines:", *last])


@contextlib.contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold the lock of a comparison's directory; give its file descriptor.

    A run inherits the descriptor and so holds the lock as well: should the comparison be killed,
    no other one trains in the run's directory before the run has ended.

    Raises:
        InputError: another comparison, or a run that one left behind, holds it; or it is a file.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"--work-dir {root}: is a file, expected a directory")
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


def train_command(config: Path, work_dir: Path) -> list[str]:
    """Return the command of a run; it is the user's own ``train``."""
    tool = [sys.executable, "-m", "det_losses", "train"]
    return [*tool, str(config), "--work-dir", str(work_dir), "--resume"]


def run_process(
    command: Sequence[str],
    output: Path,
    tick: Callable[[], None],
    *,
    keep_open: int | None = None,
    env: Mapping[str, str] | None = None,
    interval: float = 0.3,
) -> int:
    """Run a command with its output appended to a file.

    It has a session of its own, so that Ctrl-C on the terminal reaches this process alone, which
    then stops the other one in order.

    Args:
        command: program and arguments.
        output: the file that gets stdout and stderr.
        tick: called every ``interval`` seconds.
        keep_open: a file descriptor that the process inherits (the lock of the directory).
        env: environment variables to set beside those of this process.
        interval: seconds.

    Returns:
        The exit status; negative is minus a signal.
    """
    path = os.pathsep.join(filter(None, [str(import_root()), os.environ.get("PYTHONPATH")]))
    with output.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=() if keep_open is None else (keep_open,),
            env={**os.environ, **(env or {}), "PYTHONPATH": path},
        )
        try:
            while True:
                try:
                    return process.wait(timeout=interval)
                except subprocess.TimeoutExpired:
                    tick()
        except BaseException:
            _stop(process)
            raise


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever is left of it, its workers too
    process.wait()


class RunDisplay:
    """The lines of one run: rewritten in place on a terminal, one an epoch in a file.

    Args:
        title: what each line begins with.
        work_dir: where the run tells its progress.
        finished: durations of the comparison's finished runs, seconds.
        left: how many runs come after this one in its slot of ``--jobs``.
        stream: where to; default stdout.
        live: whether a terminal's line may be rewritten; not where several runs write to it.
    """

    def __init__(
        self,
        title: str,
        work_dir: Path,
        finished: Sequence[float],
        left: int,
        stream: TextIO | None = None,
        live: bool = True,
    ) -> None:
        self._stream = stream or sys.stdout
        self._live = live and self._stream.isatty()
        self._title = title
        self._file = work_dir / PROGRESS_FILE
        self._file.unlink(missing_ok=True)
        self._finished, self._left = finished, left
        self._start = time.perf_counter()
        self._first: dict[str, Any] | None = None
        self._shown: Any = None
        self._width = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the display was made, just before the run's process."""
        return time.perf_counter() - self._start

    def say(self, text: str) -> None:
        """Print a line that stays."""
        _print_line(self._stream, f"{self._title}  {text}")

    def __call__(self) -> None:
        """Show what is new."""
        state = read_json(self._file)
        if state is None:
            return
        self._first = self._first or state
        tenth = 10 * state["step"] // max(1, state["steps"])
        few = 1 < state["epochs"] <= _FEW_EPOCHS
        news = state["step"] if self._live else (state["epoch"] if few else tenth)
        if (news, state["AP"]) == self._shown:
            return
        self._shown = news, state["AP"]
        text = self._line(state)
        if self._live:
            text = text[: shutil.get_terminal_size().columns - 1]  # a wrapped line would stay
            self._width = max(self._width, len(text))
            print(f"\r{text:<{self._width}}", end="", file=self._stream, flush=True)
        else:
            _print_line(self._stream, text)

    def close(self, text: str) -> None:
        """Replace the line by the run's last one."""
        start = "\r" if self._live else ""
        _print_line(self._stream, f"{start}{f'{self._title}  {text}':<{self._width}}")

    def _line(self, state: dict[str, Any]) -> str:
        steps = max(1, state["steps"])
        done = (state["step"] - self._first["step"]) / steps
        fraction = state["step"] / steps
        # A resumed run does the rest only: its pace counts from where it began.
        pace = self.elapsed / done * fraction if done > 0 else self.elapsed
        current, total = remaining(self._finished, self._left, pace, fraction if done > 0 else 0.0)
        parts = [f"{self._title}  {state['step']}/{state['steps']} steps"]
        if state["loss"] is not None:
            parts.append(f"loss {state['loss']:.3f}")
        if state["AP"] is not None:
            parts.append(f"AP {state['AP']:.3f}")
        if current is not None:
            parts.append(f"{duration(current)} left")
            if self._left:
                parts.append(f"{duration(total)} for all")
        return "  ".join(parts)


def _print_line(stream: TextIO, text: str) -> None:
    """Print in one write: `print` writes the line break apart, and runs print at the same time."""
    stream.write(f"{text}\n")
    stream.flush()


def remaining(
    whole: Sequence[float], left: int, elapsed: float, fraction: float
) -> tuple[float | None, float | None]:
    """Estimate the seconds left for the current run and for all.

    Args:
        whole: durations of finished runs.
        left: how many runs come after the current one.
        elapsed: seconds of the current run.
        fraction: what part of a run's steps it did in that time.

    Returns:
        Both, or None where nothing is known yet.
    """
    mean = sum(whole) / len(whole) if whole else None
    if fraction > 0:
        mean_now = elapsed / fraction
        mean = mean if mean is not None else mean_now
    if mean is None:
        return None, None
    current = max(0.0, mean * (1 - fraction) if fraction else mean - elapsed)
    return current, current + left * mean
