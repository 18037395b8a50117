"""The report of a comparison: from its directory to HTML, markdown and CSV."""

from det_losses.report.study import Study
from det_losses.report.write import details, summary, write_report

__all__ = ["Study", "details", "summary", "write_report"]
