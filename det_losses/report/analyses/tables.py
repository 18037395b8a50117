"""Tables of differences to the baseline."""

from collections.abc import Sequence

from det_losses.report.analyses.context import Context
from det_losses.report.formats import difference, points
from det_losses.report.section import Table
from det_losses.statistics import Difference


def signed(value: float) -> str:
    """Return a difference in points with its sign.

    >>> signed(0.0123), signed(-0.0123), signed(0.0), signed(float("nan"))
    ('+1.2', '-1.2', '0.0', 'n/a')
    """
    text = points(value)
    return f"+{text}" if value > 0 and text != "0.0" else text


def against_baseline(context: Context, metric: str) -> dict[str, Difference]:
    """Return each variant's difference to the baseline; none where the baseline is missing."""
    if not context.others:
        return {}
    return {found.first: found for found in context.study.verdict(metric).against_baseline}


def units(context: Context) -> str:
    """Say what the columns of a table of differences hold."""
    if not context.others:
        return "AP in points, mean over seeds."
    return (
        f"{context.labels[0]}: AP in points, mean over seeds; others: difference to it, with 95% "
        "intervals over seeds and images, not adjusted for their number."
    )


def difference_table(
    context: Context,
    heads: Sequence[str],
    rows: Sequence[tuple[Sequence[str], str]],
    note: str = "",
) -> Table:
    """Lay out the baseline's mean and the differences to it, a metric a row.

    Args:
        context: the study.
        heads: names of the first columns.
        rows: for each row the texts of the first columns, and the metric.
        note: a sentence below, behind the one on the columns.
    """
    table = []
    for cells, metric in rows:
        found = against_baseline(context, metric)
        means = {label: own.full.mean() for label, own in context.study.scores(metric).items()}
        shown = context.labels[:1] if context.others else context.labels
        texts = [points(means[label]) for label in shown]
        texts += [_text(found[label]) for label in context.others]
        table.append([*cells, *texts])
    return Table([*heads, *context.labels], table, f"{units(context)} {note}".strip())


def _text(found: Difference) -> str:
    return difference(found.value, found.low, found.high)
