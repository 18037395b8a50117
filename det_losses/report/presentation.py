"""A study in Python: as a table, as a figure, and as HTML for a notebook."""

import importlib
import io
import math
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from det_losses.errors import printable
from det_losses.report import tables
from det_losses.report.answer import supports_ranking, unit
from det_losses.report.cautions import cautions
from det_losses.report.next_step import next_step
from det_losses.report.plotting import clean, styles
from det_losses.report.study import Study

_WIDTH, _ROW, _REST = 6.4, 0.4, 1.1  # inches: of a figure; the height of a row, and of the axis


def table(study: Study, metric: str) -> Any:
    """Return a row for each compared variant, best first; see :meth:`Study.table`."""
    verdict, ranked = study.verdict(metric), supports_ranking(study)
    against = {found.first: found for found in verdict.against_baseline}
    rows = []
    for summary in verdict.summaries:
        found = against.get(summary.label)
        tested = ranked and verdict.tested and not math.isnan(summary.mean)
        cost = verdict.regrets.get(summary.label)
        row = {
            "variant": summary.label,
            metric: _points(summary.mean),
            "sd": _points(summary.sd),
            "seeds": summary.seeds,
            "difference": _points(found and found.value),
            "low": _points(found and found.low),
            "high": _points(found and found.high),
            "p": float(found.p) if ranked and found else math.nan,
            "may_be_best": summary.label in verdict.regrets if tested else None,
            "costs_at_most": _points(cost if tested else None),
        }
        rows.append(row)
    try:
        return importlib.import_module("pandas").DataFrame(rows)
    except ModuleNotFoundError:
        return rows


def _points(value: float | None) -> float:
    return math.nan if value is None else 100 * float(value)


class NotebookFigure(Figure):
    """A figure that a notebook shows once, because pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=120)
        return content.getvalue()


def plot(study: Study, metric: str) -> Figure:
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


def as_html(study: Study) -> str:
    """Return answer, next step, table and cautions as HTML without scripts and styles."""
    standings = tables.standings(study).table
    step = next_step(study)
    parts = [f"<p><strong>{escape(study.answer)}</strong></p>"]
    if step:
        commands = "\n".join(step.commands)
        parts.append(f"<p>{escape(step.text)}</p>")
        parts += [f"<pre>{escape(commands)}</pre>"] if commands else []
    parts += [_html_table(standings.headers, standings.rows), f"<p>{escape(standings.note)}</p>"]
    found = cautions(study)
    if found:
        parts.append(f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in found)}</ul>")
    return printable("".join(parts))


def _html_table(headers: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
