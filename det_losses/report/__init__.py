"""The report of a comparison as HTML, markdown and CSV, from the files in its directory."""

import re
from pathlib import Path

from det_losses.report.presentation import details, summary
from det_losses.report.runs import Runs
from det_losses.report.study import Study

__all__ = ["Study", "details", "summary", "without_refresh", "write_report"]


def write_report(study: Runs, out: Path) -> Path:
    """Write report.html, report.md and differences.csv into ``out``; return the HTML's path."""
    from det_losses.report import write  # loads matplotlib and jinja2

    return write.write_report(study, out)


def without_refresh(page: str) -> str:
    """Return an interim report's page so that it no longer reloads itself."""
    return re.sub(r'<meta http-equiv="refresh" content="\d+">\n', "", page)
