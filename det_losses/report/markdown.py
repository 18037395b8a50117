"""A report as markdown, which is also readable as plain text: everything except the figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from det_losses.errors import printable
from det_losses.report.next_step import NextStep
from det_losses.report.section import Section, Table

if TYPE_CHECKING:  # it imports matplotlib, which other users of these tables do not need
    from det_losses.report.document import Document

_NUMBER = re.compile(
    r"(<?[-+]?[\d.,]+(e-?\d+)?( ± [\d.]+)?( ?%)?( \[.*\])?|n/a|baseline|-|)",
)


def markdown(document: Document) -> str:
    """Return the report."""
    blocks = [
        f"# {escape(document.title)}",
        f"**{escape(document.headline)}**",
        *next_step_blocks(document.next_step),
        escape(document.subtitle),
        *(f"> {escape(sentence)}" for sentence in document.cautions),
        as_text(document.standings.table),
    ]
    for section in document.sections:
        blocks += section_blocks(section)
    return printable("\n\n".join(blocks)) + "\n"  # the file may be shown in a terminal


def next_step_blocks(step: NextStep | None) -> list[str]:
    """Return the sentence and the commands of what to do next."""
    if step is None:
        return []
    return [escape(step.text), *([_fenced("\n".join(step.commands))] if step.commands else [])]


def section_blocks(section: Section) -> list[str]:
    """Return title, text, tables and preformatted texts of a section as separate paragraphs."""
    blocks = [f"## {escape(section.title)}"]
    blocks += [escape(section.text)] if section.text else []
    blocks += [as_text(content) for content in section.tables]
    blocks += [_fenced(code) for code in section.codes]
    return blocks


def as_text(content: Table) -> str:
    """Return a table with its note."""
    note = f"\n\n{escape(content.note)}" if content.note else ""
    return table(content.headers, content.rows) + note


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a markdown table with aligned columns; columns of numbers are right-aligned.

    >>> print(table(["loss", "AP"], [["GIoULoss", 39.3], ["L1Loss", 7.1]]))
    | loss     |   AP |
    | -------- | ---: |
    | GIoULoss | 39.3 |
    | L1Loss   |  7.1 |
    """
    cells = [[_cell(str(cell)) for cell in row] for row in (headers, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(headers))]
    right = [is_numeric([row[i] for row in cells[1:]]) for i in range(len(headers))]
    lines = [
        [
            f"{cell:>{w}}" if r else f"{cell:<{w}}"
            for cell, w, r in zip(row, widths, right, strict=True)
        ]
        for row in cells
    ]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def is_numeric(cells: Sequence[str]) -> bool:
    """Return whether a column holds only numbers, dashes and empty cells."""
    return any(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)


def escape(text: str) -> str:
    r"""Escape text that markdown would interpret as HTML.

    A backslash before it is doubled, because it would cancel that of the escape.

    >>> print(escape(r"<script> \<b> &lt; a < b & c"))
    \<script> \\\<b> &amp;lt; a < b & c
    """
    text = re.sub(r"&(?=#|\w+;)", "&amp;", text)
    return re.sub(r"(\\*)<(?=[A-Za-z/!?])", r"\1\1\<", text)


def _cell(text: str) -> str:
    return re.sub(r"(\\*)\|", r"\1\1\|", escape(" ".join(text.split())))


def _fenced(code: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
    return f"{fence}\n{code}\n{fence}"
