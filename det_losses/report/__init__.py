"""The report of a comparison as HTML, markdown and CSV, from the files in its directory."""

from pathlib import Path

from det_losses.report import markdown, tables, text
from det_losses.report.study import Study

__all__ = ["Study", "details", "summary", "write_report"]


def summary(study: Study) -> str:
    """Return the result, the table of variants and the cautions as text for a terminal."""
    table = markdown.as_text(tables.standings(study).table)
    return "\n\n".join([text.headline(study), table, *text.cautions(study)])


def details(study: Study) -> str:
    """Return the other metrics, the power and all pairs as text for a terminal."""
    sections = [tables.other_metrics(study), text.power(study), tables.pairs(study)]
    return "\n\n".join(block for s in sections if s for block in markdown.section_blocks(s))


def write_report(study: Study, out: Path) -> Path:
    """Write report.html, report.md and differences.csv into ``out``; return the HTML's path."""
    from det_losses.report import write  # loads matplotlib and jinja2

    return write.write_report(study, out)
