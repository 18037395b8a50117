"""Rows: one for each run, from what its directory holds; results.json and results.csv."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from det_losses.compare.files import finite, read_json, write_json
from det_losses.compare.plan import Plan, PlannedRun
from det_losses.compare.run import read_metrics
from det_losses.files import write_text

STATUS_FILE = "status.json"
METRICS = ("AP", "AP50", "AP75", "AP80", "AP90", "APs", "APm", "APl")


def set_status(run: PlannedRun, status: str, error: str | None = None) -> None:
    """Store how a run that is not finished ended: ``"failed"`` or ``"interrupted"``."""
    write_json(run.work_dir / STATUS_FILE, {"status": status, "error": error})


def row(plan: Plan, run: PlannedRun, root: Path) -> dict[str, Any]:
    """Return the row of a run; status is done, failed, interrupted or pending."""
    record = read_metrics(run.work_dir)
    stored = {} if record else read_json(run.work_dir / STATUS_FILE) or {}
    return {
        "loss": run.loss.label,
        "component": plan.component,
        "config": run.loss.config,
        "seed": run.seed,
        "status": "done" if record else stored.get("status", "pending"),
        "error": stored.get("error"),
        "metrics": finite(record.get("metrics", dict.fromkeys(METRICS))),
        "train_seconds": record.get("train_seconds"),
        "peak_memory_mb": record.get("peak_memory_mb"),
        "built": record.get("losses"),
        "work_dir": str(run.work_dir.relative_to(root)),
    }


def rows(plan: Plan, root: Path) -> list[dict[str, Any]]:
    """Return the rows of all runs of a plan, in its order."""
    return [row(plan, run, root) for run in plan.runs(root)]


def write_results(root: Path, meta: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Write ``results.json`` and ``results.csv``, each whole or not at all."""
    write_json(root / "results.json", {"meta": meta, "runs": results})
    write_text(root / "results.csv", to_csv(results))


def to_csv(results: list[dict[str, Any]]) -> str:
    """Return the rows as CSV, best AP first, the runs without one last."""
    extra = sorted({name for result in results for name in result["metrics"]} - set(METRICS))
    plain = ("loss", "component", "seed", "status")
    end = ("train_seconds", "peak_memory_mb", "config", "error", "work_dir")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*plain, *METRICS, *end[:2], *extra, *end[2:]])
    for result in sorted(results, key=lambda r: -(r["metrics"].get("AP") or -1.0)):
        writer.writerow(
            [
                *(result[key] for key in plain),
                *(result["metrics"].get(name) for name in METRICS),
                *(result[key] for key in end[:2]),
                *(result["metrics"].get(name) for name in extra),
                json.dumps(result["config"]),
                *(result[key] for key in end[3:]),
            ]
        )
    return text.getvalue()
