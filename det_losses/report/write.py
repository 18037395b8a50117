"""The files of a report, and the statistics in results.json."""

import csv
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from det_losses.evaluation.metrics import METRICS
from det_losses.files import (
    REPORT_FILE,
    RESULTS_FILE,
    finite,
    read_whole_json,
    write_json,
    write_text,
)
from det_losses.report.answer import headline, supports_ranking
from det_losses.report.document import Document, document
from det_losses.report.formats import no_interval
from det_losses.report.markdown import is_numeric, markdown
from det_losses.report.plotting import Intervals, styles
from det_losses.report.runs import Runs
from det_losses.report.section import Table
from det_losses.report.tables import Standing
from det_losses.statistics import Difference, Verdict

MARKDOWN_FILE, CSV_FILE = "report.md", "differences.csv"

_SHORT = 16  # a word of at most this length is not broken
_FIELDS = ("value", "low", "high", "se", "df", "p", "detectable")
_COLUMNS = (
    *("variant", "metric", "mean", "sd", "seeds", "baseline", "difference", *_FIELDS[1:]),
    *("letters", "critical", "seed_se", "image_se", "may_be_best", "costs_at_most"),
)


def write_report(study: Runs, out: Path) -> Path:
    """Write the report's files, each atomically; add the statistics to results.json in ``out``.

    Args:
        study: the runs.
        out: the folder, which is created if missing.

    Returns:
        The path of the HTML file.
    """
    out = Path(out)
    contents = document(study)
    write_text(out / REPORT_FILE, html(contents))
    write_text(out / MARKDOWN_FILE, markdown(contents))
    write_text(out / CSV_FILE, differences_csv(study))
    if not study.interim:  # while runs train, results.json is theirs
        _add_statistics(study, out / RESULTS_FILE)
    return out / REPORT_FILE


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
    """Return escaped text; a long word may be broken after punctuation.

    >>> print(breakable("n/a"), breakable("GIoULoss(loss_weight=2.5,eps<1)"))
    n/a GIoULoss(<wbr>loss_weight=2.5,<wbr>eps&lt;1)
    """
    words = [
        Markup("<wbr>").join(re.split(r"(?<=[:,/(])(?=\S)", word) if len(word) > _SHORT else [word])
        for word in text.split(" ")
    ]
    return Markup(" ").join(words)


def _numeric(table: Table) -> list[bool]:
    """Return which columns are numeric, judged by the first line of each cell."""
    first_lines = [[cell.partition("\n")[0] for cell in row] for row in table.rows]
    return [is_numeric([row[i] for row in first_lines]) for i in range(len(table.headers))]


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def _add_statistics(study: Runs, file: Path) -> None:
    """Store the statistics in the results.json of the comparison; merged ones have none."""
    if [part.folder.resolve() for part in study.origins] != [file.parent.resolve()]:
        return
    stored = read_whole_json(file)
    if stored is not None:
        write_json(file, {**stored, "statistics": statistics(study)}, indent=2)


def statistics(study: Runs) -> dict[str, Any]:
    """Return the answer and the differences as plain values, as in results.json.

    docs/report.md lists the keys.
    """
    verdict = study.verdict() if study.comparable else None
    return finite(
        {
            "answer": headline(study),
            "metric": study.metric,
            "baseline": study.baseline,
            "ranked": supports_ranking(study) and verdict.tested,
            "level": 1 - verdict.error if verdict else None,
            "within": study.within,
            "resamples": study.resamples,
            "differences": [
                dict(zip(_COLUMNS, row, strict=True)) for row in _difference_rows(study)
            ],
        }
    )


def differences_csv(study: Runs) -> str:
    """Return CSV with a row per metric and variant: numbers in 0..1, empty if undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_difference_rows(study))
    return text.getvalue()


def _difference_rows(study: Runs) -> Iterator[list[Any]]:
    """Yield the rows of all metrics, the primary one first; None if undefined."""
    if study.comparable:
        names = [*METRICS, *(f"AP/{name}" for name in study.truth.names)]
        for name in sorted(names, key=lambda name: name != study.metric):
            yield from _rows(study.verdict(name))


def _rows(verdict: Verdict) -> list[list[Any]]:
    against = {d.first: d for d in verdict.against_baseline}
    rows = []
    for s in verdict.summaries:
        d = against.get(s.label)
        found = [_of(d, field) for field in _FIELDS]
        parts = [_of(d, field) for field in ("critical", "seed_se", "image_se")]
        own = [s.label, verdict.metric, _known(s.mean), _known(s.sd), s.seeds, verdict.baseline]
        known = verdict.tested and not math.isnan(s.mean)
        may_be_best = ("yes" if s.label in verdict.regrets else "no") if known else None
        cost = verdict.regrets.get(s.label)
        letters = verdict.letters[s.label] or None
        rows.append([*own, *found, letters, *parts, may_be_best, _known(cost)])
    return rows


def _of(found: Difference | None, field: str) -> float | None:
    """Return a number of a difference; None where it is undefined, or nothing varies."""
    if found is None or (field != "value" and no_interval(found.low, found.high)):
        return None
    return _known(getattr(found, field))


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
