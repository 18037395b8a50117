"""What a report is made of: sections of text, figures and tables."""

from dataclasses import dataclass

from det_losses.report.formats import NONE


@dataclass(frozen=True)
class Figure:
    """A picture that needs no other file.

    Attributes:
        svg: an inline ``<svg>`` element, or an ``<img>`` whose source is a data URI. It is put into
            the page as it is, so text from data must be escaped in it.
        caption: what it shows, plain text.
    """

    svg: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        headers: one text a column.
        rows: cells, each row as long as ``headers``; plain text.
        note: a sentence below it; plain text.
    """

    headers: list[str]
    rows: list[list[str]]
    note: str = ""


def without_empty(table: Table) -> Table:
    """Return a table without the columns that hold nothing but gaps and dashes."""
    kept = [
        index
        for index in range(len(table.headers))
        if any(row[index] not in ("", NONE) for row in table.rows)
    ]
    rows = [[row[index] for index in kept] for row in table.rows]
    return Table([table.headers[index] for index in kept], rows, table.note)


@dataclass(frozen=True)
class Section:
    """A part of the report under a title of its own.

    Attributes:
        title: plain text.
        text: plain text; an empty line separates paragraphs.
        figures: shown below the text.
        tables: shown below the figures.
    """

    title: str
    text: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Part:
    """A section, and how a report shows it.

    Attributes:
        section: its title, text, figures and tables.
        codes: texts that are shown as they are, below the tables.
        folded: whether a page shows its title only, until one opens it.
    """

    section: Section
    codes: tuple[str, ...] = ()
    folded: bool = False
