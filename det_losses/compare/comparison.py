"""The comparison: every run of a plan that is not finished, one process each."""

import json
import math
import os
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mmengine.config import Config

from det_losses.compare.budget import Budget
from det_losses.compare.files import write_json
from det_losses.compare.plan import Plan, PlannedRun, run_config
from det_losses.compare.process import run_process, train_command
from det_losses.compare.progress import RunDisplay
from det_losses.compare.rows import rows, set_status, write_results
from det_losses.engine.run import CONFIG_FILE, is_finished, read_metrics
from det_losses.files import RESULTS_FILE, TRUTH_FILE, read_json, write_text
from det_losses.report.formats import duration

LOG_FILE = "output.log"
BUDGET_NOTE = (
    "The time budget ended before all planned runs; the same command with a new budget goes on."
)


class BudgetSpent(Exception):
    """The time that the command may take is over."""


class Comparison:
    """A plan on its way to its results.

    Args:
        cfg: the config that all runs share.
        asked: the plan of this command; further variants or seeds of an earlier command in the
            same directory stay in the results.
        root: the directory of the comparison.
        lock: file descriptor of the directory's lock, which the runs inherit.
        facts: what the results' ``meta`` says beside the plan (command, data, versions, hardware);
            its ``ground_truth`` becomes a file of its own.
        jobs: how many runs go at the same time; the cores are shared out among them.
        budget: the time that the command may take; None is any.

    Raises:
        ValueError: the directory holds a comparison on another config, or evaluated otherwise.
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
        self.plan = asked.joined(stored, root) if stored else asked
        self._cfg, self._root, self._facts = cfg, root, dict(facts)
        self._lock, self._jobs, self._budget = lock, jobs, budget
        self._writing, self._stop = threading.Lock(), threading.Event()
        self._store_truth(self._facts.pop("ground_truth", None))
        labels = {variant.label for variant in asked.variants}
        self.runs = [
            run
            for run in self.plan.runs(root)
            if run.variant.label in labels and run.seed in asked.seeds
        ]
        previous = (read_json(root / RESULTS_FILE) or {}).get("meta", {})
        self._started = previous.get("started", _now())
        before = previous.get("commands", [])
        own = [facts["command"]] if "command" in facts else []
        self._commands = list(dict.fromkeys([*before, *own]))
        # Whether a budget ends this time, this time will say.
        self._notes = [note for note in previous.get("notes", []) if note != BUDGET_NOTE]

    def execute(self) -> None:
        """Train what is not finished; results are written after every run.

        At the end of a budget no run is started any more, and those under way are stopped in order:
        a later command goes on with them.

        Raises:
            KeyboardInterrupt: after the runs under way were stopped and the results were written.
        """
        self.plan.save(self._root)
        self.write()
        durations: list[float] = []
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
                display = RunDisplay(title, run.work_dir, durations, after, live=self._jobs == 1)
                futures.append(pool.submit(self._train, run, display, durations))
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                for future in futures:
                    if future.done():
                        future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def forecast(self, budget: Budget) -> str:
        """Return the plan in a sentence: how many runs, how long, which seeds."""
        todo = [run for run in self.runs if not is_finished(run.work_dir)]
        seconds = math.ceil(len(todo) / self._jobs) * budget.run_seconds
        seeds = ", ".join(map(str, sorted({run.seed for run in self.runs})))
        return (
            f"seeds {seeds}: {len(todo)} runs of about {duration(budget.run_seconds)}, "
            f"{self._jobs} at a time, end in about {duration(seconds)} of the "
            f"{duration(budget.seconds)} given"
        )

    def note(self, text: str) -> None:
        """Add a sentence to the report, once."""
        if text not in self._notes:
            self._notes.append(text)

    def write(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Write results.json and results.csv; return meta and rows."""
        with self._writing:
            meta, results = self.meta(), rows(self.plan, self._root)
            write_results(self._root, meta, results)
        return meta, results

    def meta(self) -> dict[str, Any]:
        """Return what results say beside the rows."""
        return {
            "components": self.plan.components,
            "detector": self.plan.detector,
            "variants": {
                variant.label: {
                    "changes": variant.changes,
                    "source": variant.source,
                    "factors": variant.factors,
                    "weight": variant.weight,
                }
                for variant in self.plan.variants
            },
            "seeds": self.plan.seeds,
            "hash": self.plan.hash,
            **self._facts,
            "commands": self._commands,
            "started": self._started,
            "finished": _now(),
            "notes": self._notes,
        }

    def _store_truth(self, truth: dict[str, Any] | None) -> None:
        file = self._root / TRUTH_FILE
        stored = read_json(file)
        if stored is None and truth is not None:
            write_json(file, truth)
        elif truth is not None and stored != json.loads(json.dumps(truth)):
            raise ValueError(
                f"{file}: the validation data have changed since this comparison began; "
                "give another --work-dir"
            )

    def _train(self, run: PlannedRun, display: RunDisplay, durations: list[float]) -> None:
        if self._budget and not self._budget.allows_run(durations):
            print(f"{display.title}  not started: too little of the budget is left")
            self.note(BUDGET_NOTE)
            return
        config, log = run.work_dir / CONFIG_FILE, run.work_dir / LOG_FILE
        if not config.is_file():
            run.work_dir.mkdir(parents=True, exist_ok=True)
            write_text(config, run_config(self._cfg, run).pretty_text)
        print(f"{display.title}  started, log in {log}", file=display.stream, flush=True)
        begin = log.stat().st_size if log.is_file() else 0
        try:
            command = train_command(config, run.work_dir)
            display.start()
            status = run_process(
                command, log, lambda: self._tick(display), keep_open=self._lock, env=self._threads()
            )
        except BudgetSpent:
            set_status(run, "interrupted", "the budget ended")
            display.close("stopped: the budget is spent")
            self.note(BUDGET_NOTE)
            self.write()
            return
        except KeyboardInterrupt:
            set_status(run, "interrupted")
            display.close(_outcome(run) if is_finished(run.work_dir) else "interrupted")
            self.write()
            raise
        if is_finished(run.work_dir):
            durations.append(display.elapsed)
            display.close(f"{_outcome(run)} in {duration(display.elapsed)}")
        else:
            set_status(run, "failed", _tail(log, begin, status))
            display.close(f"FAILED, see {log}")
        self.write()

    def _tick(self, display: RunDisplay) -> None:
        """Show what is new, or end this run because another one, the user or the budget ends it."""
        if self._stop.is_set():
            raise KeyboardInterrupt
        if self._budget and self._budget.left <= 0:
            raise BudgetSpent
        display()

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


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
