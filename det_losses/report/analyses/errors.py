"""What kinds of errors cost AP."""

import numpy as np
from matplotlib.axes import Axes

from det_losses.report.analyses.context import Context
from det_losses.report.analyses.facts import ERRORS
from det_losses.report.formats import spread
from det_losses.report.plotting import INK, chart
from det_losses.report.section import Figure, Section, Table

TITLE = "Error types"

NAMES = {
    "Cls": "class",
    "Loc": "localisation",
    "Both": "class and localisation",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}
MEANINGS = {
    "Cls": "a detection that fits an object (IoU at least .5) of another class",
    "Loc": "a detection of the right class with a poor fit (IoU from .1 to .5)",
    "Both": "a detection of another class with a poor fit",
    "Dupe": "a detection that fits an object that another one of higher score has taken",
    "Bkg": "a detection where no object is (IoU below .1 with all)",
    "Miss": "an object that no detection found, not even with one of the errors above",
}


def section(context: Context) -> Section | None:
    """Return the section, or None where no run is finished."""
    if not context.labels:
        return None
    text = (
        "Which errors cost most: for each type, the AP50 that a variant would gain if it made no "
        "error of that type (TIDE, Bolya et al. 2020, computed by hotcoco). They do not add up."
    )
    means = {
        label: np.array([[fact.errors[key] for key in ERRORS] for fact in facts])
        for label, facts in context.facts.items()
    }
    return Section(
        TITLE, text + context.evaluated, (_figure(context, means),), (_table(means), _meanings())
    )


def _figure(context: Context, errors: dict[str, np.ndarray]) -> Figure:
    count = len(errors)
    step = 0.8 / count

    def paint(axes: Axes) -> None:
        for place, (label, values) in enumerate(errors.items()):
            style = context.styles[label]
            at = np.arange(len(ERRORS)) + step * (place - (count - 1) / 2)
            mean = 100 * values.mean(axis=0)
            axes.barh(at, mean, 0.55 * step, color=style.colour, alpha=0.55)
            axes.plot(mean, at, color=style.colour, marker=style.marker, linestyle="none")
            for row, column in zip(at, 100 * values.T, strict=True):
                if len(column) > 1:
                    axes.plot([column.min(), column.max()], [row] * 2, color=INK, linewidth=0.8)
        axes.set_yticks(
            range(len(ERRORS)), [NAMES[key].replace(" and ", "\nand ") for key in ERRORS]
        )
        axes.set_ylim(len(ERRORS) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.tick_params(axis="y", length=0)

    picture = chart(
        paint,
        "errors",
        "AP50 that each type of error costs each variant",
        x="AP50 lost",
        height=60 + len(ERRORS) * max(28, 9 * count + 8),
        grid="x",
        legend=context.legend(list(errors)),
        lines=False,
        markers=True,
    )
    return Figure(
        picture, "AP50 that each type of error costs, mean over seeds; lines: their range."
    )


def _meanings() -> Table:
    rows = [[NAMES[key], meaning] for key, meaning in MEANINGS.items()]
    return Table(["error", "what it means"], rows)


def _table(errors: dict[str, np.ndarray]) -> Table:
    rows = []
    for label, values in errors.items():
        sds = values.std(axis=0, ddof=1) if len(values) > 1 else [None] * len(ERRORS)
        means = values.mean(axis=0)
        cells = [spread(float(m), s) for m, s in zip(means, sds, strict=True)]
        rows.append([label, *cells])
    note = "AP50 in points, mean over seeds ± standard deviation."
    return Table(["variant", *(NAMES[key] for key in ERRORS)], rows, note)
