"""The files of a report: report.html, report.md and differences.csv."""

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from det_losses.evaluation.metrics import METRICS
from det_losses.files import write_text
from det_losses.report.document import Document, document
from det_losses.report.markdown import is_numeric, markdown
from det_losses.report.plotting import Intervals, styles
from det_losses.report.section import Table
from det_losses.report.study import Study
from det_losses.report.tables import Standing
from det_losses.statistics import Verdict

HTML_FILE, MARKDOWN_FILE, CSV_FILE = "report.html", "report.md", "differences.csv"

_SHORT = 16  # a text of at most this length is not broken
_FIELDS = ("value", "low", "high", "se", "df", "p", "detectable")
_HEADERS = ("variant", "metric", "mean", "sd", "seeds", "baseline", "difference", *_FIELDS[1:])
_FURTHER = ("letters", "critical", "seed_se", "image_se", "may_be_best", "costs_at_most")


def write_report(study: Study, out: Path) -> Path:
    """Write the report's files, each atomically.

    Args:
        study: the runs.
        out: the folder, which is created if missing.

    Returns:
        The path of the HTML file.
    """
    out = Path(out)
    contents = document(study)
    write_text(out / HTML_FILE, html(contents))
    write_text(out / MARKDOWN_FILE, markdown(contents))
    write_text(out / CSV_FILE, differences_csv(study))
    return out / HTML_FILE


def html(contents: Document) -> str:
    """Return the self-contained page. All text is escaped; figures are inserted unchanged."""
    standings = contents.standings
    known = [row.difference for row in standings.rows if row.difference is not None]
    intervals = Intervals.of(known)
    style = styles(standings.order, standings.baseline)

    def interval(row: Standing) -> Markup:
        drawn = intervals.plot(row.difference, style[row.label].colour, row.significant)
        return Markup(drawn if known else "")

    return render(
        "template.html",
        document=contents,
        axis=Markup(intervals.axis() if known else ""),
        interval=interval,
        style=style,
    )


def render(template: str, **values: Any) -> str:
    """Return a page from one of the templates of this package."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        numeric=_numeric, paragraphs=_paragraphs, safe=Markup, breakable=breakable, **values
    )


def breakable(text: str) -> Markup:
    """Return escaped text; a long text may be broken after punctuation.

    >>> print(breakable("n/a"), breakable("GIoULoss(loss_weight=2.5,eps<1)"))
    n/a GIoULoss(<wbr>loss_weight=2.5,<wbr>eps&lt;1)
    """
    if len(text) <= _SHORT:
        return Markup("") + text
    return Markup("<wbr>").join(part for part in re.split(r"(?<=[:,/(])(?=\S)", text))


def _numeric(table: Table) -> list[bool]:
    """Return which columns are numeric, judged by the first line of each cell."""
    first_lines = [[cell.partition("\n")[0] for cell in row] for row in table.rows]
    return [is_numeric([row[i] for row in first_lines]) for i in range(len(table.headers))]


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def differences_csv(study: Study) -> str:
    """Return CSV with a row per metric and variant: numbers in 0..1, empty if undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_HEADERS, *_FURTHER])
    if study.comparable:
        names = [*METRICS, *(f"AP/{name}" for name in study.truth.names)]
        names.sort(key=lambda name: name != study.metric)
        for name in names:
            writer.writerows(_rows(study.verdict(name)))
    return text.getvalue()


def _rows(verdict: Verdict) -> list[list[str | int | float]]:
    against = {d.first: d for d in verdict.against_baseline}
    rows = []
    for s in verdict.summaries:
        d = against.get(s.label)
        values = [getattr(d, field) if d else None for field in _FIELDS]
        parts = [getattr(d, field) if d else None for field in ("critical", "seed_se", "image_se")]
        own = [s.label, verdict.metric, _plain(s.mean), _plain(s.sd), s.seeds, verdict.baseline]
        known = verdict.tested and not math.isnan(s.mean)
        may_be_best = ("yes" if s.label in verdict.regrets else "no") if known else ""
        cost = verdict.regrets.get(s.label)
        row = [*own, *map(_plain, values), verdict.letters[s.label], *map(_plain, parts)]
        rows.append([*row, may_be_best, _plain(cost)])
    return rows


def _plain(value: float | None) -> float | str:
    return "" if value is None or math.isnan(value) else value
