"""The report of a comparison as HTML, markdown and CSV, from the files in its directory."""

import re
from pathlib import Path

from det_losses.errors import printable
from det_losses.report import answer, cautions, markdown, next_step, tables, text
from det_losses.report.study import Study

__all__ = ["Study", "details", "summary", "without_refresh", "write_report"]


def summary(study: Study) -> str:
    """Return the answer, what to do next, the table and the cautions as text for a terminal."""
    step = next_step.next_step(study)
    following = ["\n  ".join([step.text, *step.commands])] if step else []
    table = markdown.as_text(tables.standings(study).table)
    parts = [answer.headline(study), *following, table, *cautions.cautions(study)]
    return printable("\n\n".join(parts))


def details(study: Study) -> str:
    """Return the other metrics, the power and all pairs as text for a terminal."""
    sections = [tables.other_metrics(study), text.power(study), tables.pairs(study)]
    blocks = [block for s in sections if s for block in markdown.section_blocks(s)]
    return printable("\n\n".join(blocks))


def write_report(study: Study, out: Path) -> Path:
    """Write report.html, report.md and differences.csv into ``out``; return the HTML's path."""
    from det_losses.report import write  # loads matplotlib and jinja2

    return write.write_report(study, out)


def without_refresh(page: str) -> str:
    """Return an interim report's page so that it no longer reloads itself."""
    return re.sub(r'<meta http-equiv="refresh" content="\d+">\n', "", page)
