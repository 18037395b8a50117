"""The differences to the baseline as a figure, for a notebook."""

import io
import math

import matplotlib
from matplotlib.figure import Figure

from det_losses.report.answer import supports_ranking, unit
from det_losses.report.plotting import clean, styles
from det_losses.report.runs import Runs

_WIDTH, _ROW, _REST = 6.4, 0.4, 1.1  # inches: of a figure; the height of a row, and of the axis


class NotebookFigure(Figure):
    """A figure that a notebook shows once, because pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=120)
        return content.getvalue()


def difference_figure(study: Runs, metric: str) -> Figure:
    """Return the differences to the baseline with their intervals; see :meth:`Study.plot`."""
    verdict, ranked = study.verdict(metric), supports_ranking(study)
    shown = [d for d in verdict.against_baseline if math.isfinite(d.value)]
    style = styles(study.labels, study.baseline)
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = NotebookFigure(figsize=(_WIDTH, _REST + _ROW * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color="0.5", linewidth=1)
        for row, found in enumerate(shown):
            colour = style[found.first].colour
            if math.isfinite(found.low):
                axes.hlines(row, 100 * found.low, 100 * found.high, colors=colour, linewidth=2.5)
            fill = colour if ranked and verdict.differs(found) else "white"
            dot = dict(marker="o", markersize=9, markeredgewidth=2, markerfacecolor=fill)
            axes.plot([100 * found.value], [row], color=colour, linestyle="none", **dot)
        axes.set_yticks(range(len(shown)), [clean(found.first, 44) for found in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(True, axis="x", alpha=0.3)
        level = f"{100 * (1 - verdict.error):.3g}%"
        baseline = clean(study.baseline, 44)
        axes.set_xlabel(f"{unit(verdict)}: difference to {baseline}, {level} interval")
    return figure
