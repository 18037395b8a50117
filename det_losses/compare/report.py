"""The report in markdown: the table of losses, the runs, the weights, and how to repeat it."""

from typing import Any

from det_losses.compare.tables import loss_table, mean, run_table, weight_table

TOO_LOW = 0.10  # baseline AP under which differences say nothing about losses


def report(meta: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """Return the whole report."""
    parts = [
        f"# Comparison of {meta['component']} in {meta['detector']}",
        loss_table(meta, runs),
        warning(meta, runs),
        _reading(meta),
        "## Runs",
        run_table(meta, runs),
        *_errors(runs),
        "## Loss weights",
        weight_table(meta),
        "## Data",
        _data(meta),
        "## How to repeat it",
        _repeat(meta),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def warning(meta: dict[str, Any], runs: list[dict[str, Any]]) -> str | None:
    """Return the sentence that forbids a ranking, if the baseline is too weak for one."""
    baseline = next(iter(meta["losses"]))
    done = [run for run in runs if run["loss"] == baseline and run["status"] == "done"]
    value = mean([run["metrics"].get("AP") for run in done])
    if not done:
        return None
    if value is None or value >= TOO_LOW:
        return None
    return (
        f"**No ranking should be read from this table**: the baseline {baseline} reaches AP "
        f"{value:.3f}, below {TOO_LOW:.2f}. Train longer, on more images or on fewer classes."
    )


def _reading(meta: dict[str, Any]) -> str:
    seeds = meta["seeds"]
    if len(seeds) == 1:
        return (
            "One run a loss says nothing about small differences. Repeat it with `--seeds 0 1 2` "
            "to see how far two runs of the same loss are apart."
        )
    return f"Each number is a mean over the finished runs; seeds {', '.join(map(str, seeds))}."


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
