"""Tables of differences to the baseline."""

import math
from collections.abc import Sequence

from det_losses.report.analyses.context import Context
from det_losses.report.formats import difference, points
from det_losses.report.section import Table
from det_losses.statistics import Difference


def against_baseline(context: Context, metric: str) -> dict[str, Difference]:
    """Return each variant's difference to the baseline; none where the baseline is missing."""
    if not context.others:
        return {}
    return {found.first: found for found in context.study.verdict(metric).against_baseline}


def units(context: Context) -> str:
    """Say what the columns of a table of differences hold."""
    text = "AP in points, mean over seeds"
    if not context.others:
        return f"{text}."
    return (
        f"{text}, and below it the difference to {context.labels[0]} with a 95% interval over "
        "seeds and images, not adjusted for the number of rows."
    )


def difference_table(
    context: Context,
    heads: Sequence[str],
    rows: Sequence[tuple[Sequence[str], str]],
    note: str = "",
) -> Table:
    """Lay out each variant's mean and its difference to the baseline, a metric a row.

    Args:
        context: the study.
        heads: names of the first columns.
        rows: for each row the texts of the first columns, and the metric.
        note: a sentence below, behind the one on the columns.
    """
    table = []
    for cells, metric in rows:
        found = against_baseline(context, metric)
        scores = context.study.scores(metric)
        means = [float(scores[label].full.mean()) for label in context.labels]
        values = [
            cell(mean, found.get(name)) for name, mean in zip(context.labels, means, strict=True)
        ]
        table.append([*cells, *values])
    return Table([*heads, *context.labels], table, f"{units(context)} {note}".strip())


def cell(mean: float, found: Difference | None) -> str:
    """Return a mean, and below it a difference where there is one."""
    if found is None or math.isnan(found.value):
        return points(mean)
    return f"{points(mean)}\n{difference(found.value, found.low, found.high)}"
