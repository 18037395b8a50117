"""What Python gets of a comparison: its runs, the answer, tables, figures and the report."""

from pathlib import Path
from typing import Any

from det_losses.errors import InputError
from det_losses.report import presentation
from det_losses.report.answer import headline
from det_losses.report.next_step import next_step
from det_losses.report.runs import Runs


class Study(Runs):
    """The runs of one or several comparisons, with the answer that they give.

    ``print(study)`` shows the top of the report, and a notebook shows it as HTML.
    """

    @property
    def answer(self) -> str:
        """Which variant to use, in at most two sentences, or why that is not known."""
        return headline(self)

    @property
    def next_step(self) -> str:
        """What would decide the comparison, with the commands; empty if nothing is left to do."""
        step = next_step(self)
        return "\n".join([step.text, *step.commands]) if step else ""

    def table(self, metric: str | None = None) -> Any:
        """Return the variants with their scores and differences, best first.

        Args:
            metric: such as ``"AP50"`` or ``"AP/<class>"``; None: the primary metric.

        Returns:
            A DataFrame, or a list of dicts if pandas is not installed. Scores are on the scale 0 to
            100 and not rounded; what is undefined is NaN.

        Raises:
            InputError: no such metric, or the baseline has no finished run.
        """
        return presentation.table(self, metric or self.metric)

    def plot(self, metric: str | None = None) -> Any:
        """Return a matplotlib Figure of the differences to the baseline with their intervals.

        Args:
            metric: such as ``"AP50"`` or ``"AP/<class>"``; None: the primary metric.

        Raises:
            InputError: no such metric, or the baseline has no finished run.
        """
        from det_losses.report.difference_figure import difference_figure  # loads matplotlib

        return difference_figure(self, metric or self.metric)

    def report(self, path: str | Path | None = None) -> Path:
        """Write report.html, report.md and differences.csv.

        Args:
            path: the folder; None: the directory of the comparison.

        Returns:
            The path of the HTML file.

        Raises:
            InputError: no folder, and the study is not of one directory; or the path is a file.
        """
        from det_losses.report.write import write_report  # loads matplotlib and jinja2

        if path is None and len(self.origins) != 1:
            raise InputError("report: give the folder, because the study is not of one directory")
        out = Path(path) if path is not None else self.origins[0].folder
        if out.suffix in (".html", ".md", ".csv") or out.is_file():
            raise InputError(f"report: {out}: expected a folder, which gets report.html and others")
        return write_report(self, out)

    def __str__(self) -> str:
        return presentation.summary(self)

    def _repr_html_(self) -> str:
        """Return the top of the report for a notebook."""
        return presentation.as_html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))  # IPython without HTML
