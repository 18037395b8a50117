"""Seconds per iteration and peak memory of each variant."""

from collections.abc import Sequence

import numpy as np

from det_losses.report.analyses.context import Context
from det_losses.report.formats import number
from det_losses.report.section import Table

_KINDS = {
    "rss": "the resident memory of the training process",
    "cuda": "the GPU memory that torch allocated",
}


def cost_table(context: Context) -> Table | None:
    """Return seconds per iteration and peak memory, or None where neither is known."""
    runs = {label: context.finished(label) for label in context.study.labels}
    seconds = {
        label: _mean([r.get("seconds_per_iteration") for r in own]) for label, own in runs.items()
    }
    memory = {label: _mean([r.get("peak_memory_mb") for r in own]) for label, own in runs.items()}
    shown = [label for label in runs if seconds[label] is not None or memory[label] is not None]
    if not shown:
        return None
    base = context.study.baseline
    rows = [
        [
            label,
            number(seconds[label]),
            ratio(seconds[label], seconds[base]),
            number(memory[label]),
            ratio(memory[label], memory[base]),
        ]
        for label in shown
    ]
    kinds = {run.get("peak_memory_kind") for own in runs.values() for run in own}
    known = [text for kind, text in _KINDS.items() if kind in kinds]
    note = f"Means over seeds; ratios to {base} in this comparison. "
    note += f"Memory is {' or '.join(known)}. " if known else ""
    note += "On a machine that does other work too they are no benchmark."
    headers = ["variant", "s / iteration", "ratio", "peak memory (MB)", "ratio"]
    return Table(headers, rows, note)


def ratio(value: float | None, base: float | None) -> str:
    """Return a ratio, or a dash where there is none.

    >>> ratio(3.0, 2.0), ratio(None, 2.0)
    ('1.50', '-')
    """
    return number(None) if value is None or not base else f"{value / base:.2f}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
