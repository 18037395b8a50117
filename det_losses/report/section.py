"""The building blocks of a report: sections of text, figures and tables."""

from dataclasses import dataclass

from det_losses.report.formats import NONE


@dataclass(frozen=True)
class Figure:
    """A self-contained picture.

    Attributes:
        svg: markup that is inserted into the page unchanged: inline ``<svg>`` elements, possibly in
            ``<div>`` elements. Text from data must be escaped.
        caption: plain text.
    """

    svg: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        headers: one header per column.
        rows: cells as plain text, one per header. A second line in a cell is shown in a smaller
            font.
        note: plain text below the table.
    """

    headers: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        title: plain text.
        text: plain text; an empty line separates paragraphs.
        figures: shown below the text.
        tables: shown below the figures.
        codes: preformatted texts, shown below the tables.
        folded: whether the page shows only the title until the reader opens the section.
    """

    title: str
    text: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    codes: tuple[str, ...] = ()
    folded: bool = False


def without_empty(table: Table) -> Table:
    """Return a table without the columns that have only empty cells and dashes."""
    kept = [
        index
        for index in range(len(table.headers))
        if any(row[index] not in ("", NONE) for row in table.rows)
    ]
    rows = [[row[index] for index in kept] for row in table.rows]
    return Table([table.headers[index] for index in kept], rows, table.note)
