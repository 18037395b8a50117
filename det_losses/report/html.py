"""A report as one HTML file that needs no other: styles, plots and images are inside."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from det_losses.report.document import Document
from det_losses.report.interval_plot import Scale, axis, interval_plot
from det_losses.report.markdown import is_numeric
from det_losses.report.section import Table
from det_losses.report.standings import Standing

_SHORT = 16  # characters that stay on one line


def html(document: Document) -> str:
    """Return the page. Text is escaped; of figures, only the SVG is taken as it is."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = document.standings.rows
    known = [row.difference for row in rows if row.difference is not None]
    scale = Scale.of(known)

    def drawn(row: Standing) -> Markup:
        return Markup(interval_plot(scale, row.difference, row.colour, row.significant))

    template = environment.get_template("template.html")
    return template.render(
        document=document,
        axis=Markup(axis(scale)) if known else "",
        drawn=drawn if known else lambda row: "",
        numeric=_numeric,
        paragraphs=_paragraphs,
        safe=Markup,
        breakable=breakable,
    )


def breakable(text: str) -> Markup:
    """Return escaped text; a long one may be broken after a colon, comma, equals sign or slash.

    >>> print(breakable("n/a"), breakable("GIoULoss:loss_weight=2.5,eps<1"))
    n/a GIoULoss:<wbr>loss_weight=<wbr>2.5,<wbr>eps&lt;1
    """
    if len(text) <= _SHORT:
        return Markup("") + text
    return Markup("<wbr>").join(part for part in re.split(r"(?<=[:,=/])(?=\S)", text))


def _numeric(table: Table) -> list[bool]:
    """Return which columns hold numbers, also with a second line."""
    first_lines = [[cell.partition("\n")[0] for cell in row] for row in table.rows]
    return [is_numeric([row[i] for row in first_lines]) for i in range(len(table.headers))]


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]
