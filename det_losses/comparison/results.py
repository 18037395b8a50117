"""The results of a comparison: results.json, results.csv and the ground truth."""

import csv
import io
import json
import threading
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from det_losses.comparison.plan import Plan, PlannedRun, stored_results
from det_losses.errors import InputError
from det_losses.evaluation.metrics import LOGGED_METRICS
from det_losses.files import (
    RESULTS_FILE,
    TRUTH_FILE,
    finite,
    is_damaged,
    read_whole_json,
    write_json,
    write_text,
)

_OF_DATA = ("classes", "images", "val_boxes", "folds")


REBUILT_NOTE = (
    f"{RESULTS_FILE} was damaged and was rebuilt from the runs. Its notes, its earlier commands, "
    "and whether the number of seeds was fixed in advance, are lost."
)


class Results:
    """results.json and results.csv of a comparison: a row for each run, and the metadata.

    Args:
        plan: all runs in the directory.
        root: the directory of the comparison.
        facts: further entries of ``meta`` (command, data, versions, hardware); ``ground_truth``
            is written to a separate file.

    Attributes:
        notes: sentences for the report.
        failed: reasons for which runs of this command failed, by their directory, in which they
            could perhaps not be stored.
        done_before: label and seed of the runs that earlier commands recorded as done.
        looks: the looks that were taken (:mod:`~det_losses.comparison.looks`); before the first one
            is taken, its seeds and error; None if the number of seeds was fixed in advance.

    Raises:
        InputError: the stored comparison was evaluated on different data.
    """

    def __init__(self, plan: Plan, root: Path, facts: dict[str, Any]) -> None:
        self._plan, self._root = plan, root
        self._facts = {key: value for key, value in facts.items() if key != "ground_truth"}
        self._writing = threading.Lock()
        previous, rows = stored_results(root)
        self.done_before = {
            (row["variant"], row["seed"]) for row in rows if row["status"] == "done"
        }
        store_truth(root / TRUTH_FILE, facts, previous)
        self._started = previous.get("started", _now())
        command = [facts["command"]] if "command" in facts else []
        self._commands = list(dict.fromkeys([*previous.get("commands", []), *command]))
        self.failed: dict[Path, str] = {}
        self.notes: list[str] = previous.get("notes", [])
        self.looks: list[dict[str, Any]] | None = previous.get("looks")
        if is_damaged(root / RESULTS_FILE):
            self.note(REBUILT_NOTE)

    def note(self, text: str) -> None:
        """Add a sentence to the report, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)

    def write(self) -> list[dict[str, Any]]:
        """Write both files, each atomically, and return the rows."""
        with self._writing:
            rows = [self._row(run) for run in self._plan.runs(self._root)]
            content = finite({"meta": self.meta(), "runs": rows})
            write_json(self._root / RESULTS_FILE, content, indent=2)
            write_text(self._root / "results.csv", to_csv(content["runs"]))
        return content["runs"]

    def _row(self, run: PlannedRun) -> dict[str, Any]:
        row = run.row(self._root)
        if row["status"] != "done" and run.work_dir in self.failed:
            row.update(status="failed", error=self.failed[run.work_dir])
        return row

    def meta(self) -> dict[str, Any]:
        """Return the metadata of results.json."""
        variants = {
            variant.label: {
                "changes": variant.changes,
                "source": variant.source,
                "factors": variant.factors,
                "weight": variant.weight,
            }
            for variant in self._plan.variants
        }
        return {
            "components": self._plan.components,
            "detector": self._plan.detector,
            **({"trained_by": self._plan.detector} if self._plan.foreign else {}),
            "variants": variants,
            "seeds": self._plan.seeds,
            "hash": self._plan.hash,
            **self._facts,
            "commands": self._commands,
            "started": self._started,
            "finished": _now(),
            "notes": self.notes,
            **({} if self.looks is None else {"looks": self.looks}),
            **({"fork": asdict(self._plan.fork)} if self._plan.fork else {}),
        }


def store_truth(file: Path, facts: dict[str, Any], previous: dict[str, Any]) -> None:
    """Write the ground truth, or check that it is that of the earlier commands.

    If the file is missing or damaged, the numbers of images and boxes of the earlier commands must
    be those of the data.

    Raises:
        InputError: the data has changed.
    """
    if "ground_truth" not in facts:
        return
    new = json.loads(json.dumps(finite(facts)))
    stored = read_whole_json(file)
    if stored is None:
        same = all(previous.get(key, new.get(key)) == new.get(key) for key in _OF_DATA)
    else:
        same = stored == new["ground_truth"]
    if not same:
        raise InputError(
            f"{file}: the validation data has changed since this comparison was started; "
            "give another --work-dir"
        )
    if stored is None:
        write_json(file, new["ground_truth"], indent=2)


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as CSV, sorted by descending AP; runs without AP come last."""
    names = {name: None for row in rows for name in row["metrics"]}
    extra = sorted(names.keys() - set(LOGGED_METRICS))
    before = ("variant", "seed", "status")
    between = ("train_seconds", "seconds_per_iteration", "peak_memory_mb")
    after = ("initial_weights", "error", "work_dir")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*before, *LOGGED_METRICS, *between, *extra, *after])
    for row in sorted(rows, key=lambda row: -(row["metrics"].get("AP") or -1.0)):
        metrics = row["metrics"]
        writer.writerow(
            [
                *(row[key] for key in before),
                *(metrics.get(name) for name in LOGGED_METRICS),
                *(row[key] for key in between),
                *(metrics.get(name) for name in extra),
                *(row[key] for key in after),
            ]
        )
    return text.getvalue()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
