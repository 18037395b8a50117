"""The tables of a comparison, in markdown that reads well as plain text too."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from det_losses.compare.progress import duration
from det_losses.compare.rows import METRICS

_SIZE_OF = {"APs": "small", "APm": "medium", "APl": "large"}
_STATES = ("done", "failed", "interrupted", "pending")


def table(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a markdown table whose columns are aligned, to be read as plain text too."""
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in (headers, *lines)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headers))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    )


def loss_table(meta: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """Return the table of losses, best mean AP over the finished seeds first."""
    lines = []
    for label in meta["losses"]:
        own = [run for run in runs if run["loss"] == label]
        done = [run for run in own if run["status"] == "done"]
        means = {name: mean([run["metrics"].get(name) for run in done]) for name in METRICS}
        lines.append(
            (
                -1.0 if means["AP"] is None else means["AP"],
                [
                    label,
                    f"{len(done)}/{len(own)}",
                    *(_number(means[name], name, meta) if done else "" for name in METRICS),
                    _maybe(mean([run["train_seconds"] for run in done]), duration),
                    _maybe(mean([run["peak_memory_mb"] for run in done]), "{:.0f}".format),
                    _state(own),
                ],
            )
        )
    lines.sort(key=lambda line: -line[0])
    headers = ["loss", "runs", *METRICS, "training", "peak MB", "status"]
    return table(headers, [line for _, line in lines])


def run_table(meta: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """Return the table of all runs, best AP first, the runs without one last."""
    ordered = sorted(runs, key=lambda r: (-(r["metrics"].get("AP") or -1.0), r["loss"], r["seed"]))
    lines = [
        [
            run["loss"],
            run["seed"],
            run["status"],
            *(
                _number(run["metrics"].get(name), name, meta) if run["status"] == "done" else ""
                for name in METRICS
            ),
            _maybe(run["train_seconds"], duration),
            _maybe(run["peak_memory_mb"], "{:.0f}".format),
            run["work_dir"],
        ]
        for run in ordered
    ]
    headers = ["loss", "seed", "status", *METRICS, "training", "peak MB", "directory"]
    return table(headers, lines)


def weight_table(meta: dict[str, Any]) -> str:
    """Return the table of what each loss was configured with, and from where."""
    lines = [
        [
            label,
            entry["config"].get("loss_weight", 1.0),
            ", ".join(
                f"{k}={v}" for k, v in entry["config"].items() if k not in ("type", "loss_weight")
            )
            or "-",
            entry["source"],
        ]
        for label, entry in meta["losses"].items()
    ]
    return table(["loss", "loss_weight", "other parameters", "source"], lines)


def mean(values: list[float | None]) -> float | None:
    """Return the mean of what is not None, or None where nothing is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _number(value: float | None, name: str, meta: dict[str, Any]) -> str:
    if value is not None:
        return f"{value:.3f}"
    count = meta["val_boxes"].get(_SIZE_OF.get(name, "all"))
    return f"n/a ({count} boxes)"


def _maybe(value: float | None, form: Any) -> str:
    return "" if value is None else form(value)


def _state(runs: list[dict[str, Any]]) -> str:
    counts = {status: sum(r["status"] == status for r in runs) for status in _STATES}
    if counts["done"] == len(runs):
        return "done"
    return ", ".join(f"{n} {status}" for status, n in counts.items() if n and status != "done")
