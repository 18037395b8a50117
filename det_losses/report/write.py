"""The files of a report: report.html, report.md, differences.csv."""

import csv
import io
import math
from pathlib import Path

from det_losses.evaluation.metrics import METRICS
from det_losses.files import write_text
from det_losses.report.cautions import cautions
from det_losses.report.document import document
from det_losses.report.html import html
from det_losses.report.markdown import as_text, markdown, part_blocks
from det_losses.report.standings import standings
from det_losses.report.study import Study
from det_losses.report.tables import other_metrics, pairs
from det_losses.report.words import headline, spread
from det_losses.statistics import Verdict

HTML_FILE, MARKDOWN_FILE, CSV_FILE = "report.html", "report.md", "differences.csv"
_FIELDS = ("value", "low", "high", "se", "df", "p", "p_holm", "detectable")
_HEADERS = ("variant", "metric", "mean", "sd", "seeds", "baseline", "difference", *_FIELDS[1:])


def write_report(study: Study, out: Path) -> Path:
    """Write the report's files, each whole or not at all.

    Args:
        study: what it is about.
        out: the folder, which is made if missing.

    Returns:
        The path of the HTML file.
    """
    out = Path(out)
    contents = document(study)
    write_text(out / HTML_FILE, html(contents))
    write_text(out / MARKDOWN_FILE, markdown(contents))
    write_text(out / CSV_FILE, differences_csv(study))
    return out / HTML_FILE


def summary(study: Study) -> str:
    """Return the answer, cautions and the table of variants for a terminal."""
    parts = [headline(study), as_text(standings(study).table), *cautions(study)]
    return "\n\n".join(parts)


def details(study: Study) -> str:
    """Return the other metrics, the spread and all pairs for a terminal."""
    parts = [other_metrics(study), spread(study), pairs(study)]
    return "\n\n".join(block for part in parts if part for block in part_blocks(part))


def differences_csv(study: Study) -> str:
    """Return a row for each metric and variant; numbers in 0..1, "" where one is not defined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_HEADERS, "letters"])
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
        own = [s.label, verdict.metric, _plain(s.mean), _plain(s.sd), s.seeds, verdict.baseline]
        rows.append([*own, *map(_plain, values), verdict.letters[s.label]])
    return rows


def _plain(value: float | None) -> float | str:
    return "" if value is None or math.isnan(value) else value
