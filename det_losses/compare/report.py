"""The report in markdown: the table of losses, the runs, the weights, and how to repeat it."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from det_losses.compare.progress import duration
from det_losses.compare.rows import METRICS

TOO_LOW = 0.10  # baseline AP under which differences say nothing about losses
_SIZE_OF = {"APs": "small", "APm": "medium", "APl": "large"}


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
        means = {name: _mean([run["metrics"].get(name) for run in done]) for name in METRICS}
        lines.append(
            (
                -1.0 if means["AP"] is None else means["AP"],
                [
                    label,
                    f"{len(done)}/{len(own)}",
                    *(_number(means[name], name, meta) if done else "" for name in METRICS),
                    _maybe(_mean([run["train_seconds"] for run in done]), duration),
                    _maybe(_mean([run["peak_memory_mb"] for run in done]), "{:.0f}".format),
                    _state(own),
                ],
            )
        )
    lines.sort(key=lambda line: -line[0])
    headers = ["loss", "runs", *METRICS, "training", "peak MB", "status"]
    return table(headers, [line for _, line in lines])


def warning(meta: dict[str, Any], runs: list[dict[str, Any]]) -> str | None:
    """Return the sentence that forbids a ranking, if the baseline is too weak for one."""
    baseline = next(iter(meta["losses"]))
    done = [run for run in runs if run["loss"] == baseline and run["status"] == "done"]
    mean = _mean([run["metrics"].get("AP") for run in done])
    if not done:
        return None
    if mean is None or mean >= TOO_LOW:
        return None
    return (
        f"**No ranking should be read from this table**: the baseline {baseline} reaches AP "
        f"{mean:.3f}, below {TOO_LOW:.2f}. Train longer, on more images or on fewer classes."
    )


def report(meta: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """Return the whole report."""
    parts = [
        f"# Comparison of {meta['component']} in {meta['detector']}",
        loss_table(meta, runs),
        warning(meta, runs),
        _reading(meta),
        "## Runs",
        _run_table(meta, runs),
        *_errors(runs),
        "## Loss weights",
        weight_table(meta),
        "## Data",
        _data(meta),
        "## How to repeat it",
        _repeat(meta),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def weight_table(meta: dict[str, Any]) -> str:
    """Return the table of what each loss was configured with, and from where."""
    lines = [
        [
            label,
            entry["config"].get("loss_weight", 1.0),
            ", ".join(f"{k}={v}" for k, v in entry["config"].items() if k not in _ENTRY) or "-",
            entry["source"],
        ]
        for label, entry in meta["losses"].items()
    ]
    return table(["loss", "loss_weight", "other parameters", "source"], lines)


_ENTRY = ("type", "loss_weight")


def _mean(values: list[float | None]) -> float | None:
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


_STATES = ("done", "failed", "interrupted", "pending")


def _reading(meta: dict[str, Any]) -> str:
    seeds = meta["seeds"]
    if len(seeds) == 1:
        return (
            "One run a loss: on small data two seeds of one loss differ by 1.5 to 3 points of AP, "
            "so smaller differences mean nothing here. Add `--seeds 0 1 2`."
        )
    return f"Each number is a mean over the finished runs; seeds {', '.join(map(str, seeds))}."


def _run_table(meta: dict[str, Any], runs: list[dict[str, Any]]) -> str:
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


def _errors(runs: list[dict[str, Any]]) -> list[str]:
    return [
        f"{run['loss']} seed {run['seed']} failed:\n\n```\n{run['error']}\n```"
        for run in runs
        if run["status"] == "failed"
    ]


def _data(meta: dict[str, Any]) -> str:
    boxes = meta["val_boxes"]
    by_class = "\n".join(f"- {name}: {count}" for name, count in boxes["by_class"].items())
    return (
        f"{meta['images']['train']} images to train on, {meta['images']['val']} to evaluate on, "
        f"with {boxes['all']} boxes ({boxes['small']} small, {boxes['medium']} medium, "
        f"{boxes['large']} large; crowds not counted) "
        f"of {len(meta['classes'])} classes:\n\n{by_class}"
    )


def _repeat(meta: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    hardware = meta["hardware"]
    devices = ", ".join(hardware["gpus"]) or f"{hardware['cpu']}, threads: {hardware['threads']}"
    return (
        f"```\n{meta['command']}\n```\n\nConfig {meta['config']} (hash of all that the runs share: "
        f"{meta['hash'][:12]}). {versions}. {devices}; {hardware['memory']}. "
        f"Started {meta['started']}, written {meta['finished']}."
    )
