"""Rows: one for each run, from what its directory holds; results.json and results.csv."""

import csv
import io
from pathlib import Path
from typing import Any

from det_losses.compare.files import write_json
from det_losses.compare.plan import DETECTIONS_FILE, Plan, PlannedRun
from det_losses.compare.variants import Variant
from det_losses.engine.run import read_metrics
from det_losses.evaluation.metrics import LOGGED_METRICS
from det_losses.files import RESULTS_FILE, finite, read_json, write_text

STATUS_FILE = "status.json"
_TOLERANCE = 1e-4  # of the gradient comparison in records of earlier versions
_RECORDED = (
    "train_seconds",
    "seconds_per_iteration",
    "peak_memory_mb",
    "peak_memory_kind",
    "proof",
    "initial_weights",
)


def set_status(run: PlannedRun, status: str, error: str | None = None) -> None:
    """Store how a run that is not finished ended: ``"failed"`` or ``"interrupted"``."""
    write_json(run.work_dir / STATUS_FILE, {"status": status, "error": error})


def row(plan: Plan, run: PlannedRun, root: Path) -> dict[str, Any]:
    """Return the row of a run; status is done, failed, interrupted or pending.

    A run without the proof that it trained the variant's losses has failed, whatever it reached.
    """
    record = read_metrics(run.work_dir)
    error = unproven(record, run.variant) if record else None
    stored = {} if record else read_json(run.work_dir / STATUS_FILE) or {}
    status = ("failed" if error else "done") if record else stored.get("status", "pending")
    return {
        "variant": run.variant.label,
        "seed": run.seed,
        "status": status,
        "error": error or stored.get("error"),
        "metrics": finite(record.get("metrics", dict.fromkeys(LOGGED_METRICS))),
        **{key: record.get(key) for key in _RECORDED},
        "built": record.get("losses"),
        "work_dir": str(run.work_dir.relative_to(root)),
        "detections": [DETECTIONS_FILE],
        "history": "history.jsonl",
    }


def unproven(record: dict[str, Any], variant: Variant) -> str | None:
    """Return what is wrong with a finished run's proof that it trained the variant's losses."""
    for key, config in variant.changes.items():
        slot = key.removeprefix("model.")
        if not slot.startswith("loss_") or not isinstance(config, dict):
            continue
        proof = (record.get("proof") or {}).get(slot)
        if not proof:
            return f"metrics.json has no proof that {slot} was {config['type']}"
        name = config["type"].split(".")[-1]
        if not proof["loss"].startswith(f"{name}("):
            return f"{slot} was {proof['loss']}, planned was {config['type']}"
        if not proof["calls"]:
            return f"training never called {proof['loss']} in {slot}"
        probed = [value for value in proof.get("probe", {}).values() if value is not None]
        if "probe" in proof and (not probed or max(probed) > _TOLERANCE):
            return f"the gradient of {slot} was not that of {config['type']}: {proof}"
    return None


def rows(plan: Plan, root: Path) -> list[dict[str, Any]]:
    """Return the rows of all runs of a plan, in its order."""
    return [row(plan, run, root) for run in plan.runs(root)]


def write_results(root: Path, meta: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Write ``results.json`` and ``results.csv``, each whole or not at all."""
    write_json(root / RESULTS_FILE, {"meta": meta, "runs": results})
    write_text(root / "results.csv", to_csv(results))


def to_csv(results: list[dict[str, Any]]) -> str:
    """Return the rows as CSV, best AP first, the runs without one last."""
    extra = sorted({name for result in results for name in result["metrics"]} - set(LOGGED_METRICS))
    plain = ("variant", "seed", "status")
    end = ("train_seconds", "seconds_per_iteration", "peak_memory_mb")
    last = ("initial_weights", "error", "work_dir")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*plain, *LOGGED_METRICS, *end, *extra, *last])
    for result in sorted(results, key=lambda r: -(r["metrics"].get("AP") or -1.0)):
        values = [result["metrics"].get(name) for name in (*LOGGED_METRICS, *extra)]
        writer.writerow(
            [
                *(result[key] for key in plain),
                *values[: len(LOGGED_METRICS)],
                *(result[key] for key in end),
                *values[len(LOGGED_METRICS) :],
                *(result[key] for key in last),
            ]
        )
    return text.getvalue()
