"""What a report consists of: sections of text, figures and tables."""

from dataclasses import dataclass

from det_losses.report.formats import NONE


@dataclass(frozen=True)
class Figure:
    """A picture that needs no other file.

    Attributes:
        svg: markup that is put into the page unchanged: inline ``<svg>`` elements, possibly in
            ``<div>`` elements. Text that comes from data must be escaped in it.
        caption: plain text.
    """

    svg: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        headers: one text per column.
        rows: cells as plain text, each row as long as ``headers``. A second line in a cell is
            shown smaller.
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
    """Return a table without the columns that hold only empty cells and dashes."""
    kept = [
        index
        for index in range(len(table.headers))
        if any(row[index] not in ("", NONE) for row in table.rows)
    ]
    rows = [[row[index] for index in kept] for row in table.rows]
    return Table([table.headers[index] for index in kept], rows, table.note)
