"""The top of the report elsewhere: text for a terminal, HTML for a notebook, rows of a table."""

import importlib
import math
from html import escape
from typing import Any

from det_losses.errors import printable
from det_losses.report import markdown, tables, text
from det_losses.report.answer import headline, supports_ranking
from det_losses.report.cautions import cautions
from det_losses.report.next_step import next_step
from det_losses.report.runs import Runs


def summary(study: Runs) -> str:
    """Return the answer, what to do next, the table and the cautions as text for a terminal."""
    step = next_step(study)
    following = ["\n  ".join([step.text, *step.commands])] if step else []
    table = markdown.as_text(tables.standings(study).table)
    parts = [headline(study), *following, table, *cautions(study)]
    return printable("\n\n".join(parts))


def details(study: Runs) -> str:
    """Return the other metrics, the power and all pairs as text for a terminal."""
    sections = [tables.other_metrics(study), text.power(study), tables.pairs(study)]
    blocks = [block for s in sections if s for block in markdown.section_blocks(s)]
    return printable("\n\n".join(blocks))


def table(study: Runs, metric: str) -> Any:
    """Return a row for each compared variant, best first; see :meth:`Study.table`."""
    verdict, ranked = study.verdict(metric), supports_ranking(study)
    against = {found.first: found for found in verdict.against_baseline}
    rows = []
    for summary in verdict.summaries:
        found = against.get(summary.label)
        tested = ranked and verdict.tested and not math.isnan(summary.mean)
        cost = verdict.regrets.get(summary.label)
        row = {
            "variant": summary.label,
            metric: _points(summary.mean),
            "sd": _points(summary.sd),
            "seeds": summary.seeds,
            "difference": _points(found and found.value),
            "low": _points(found and found.low),
            "high": _points(found and found.high),
            "p": float(found.p) if ranked and found else math.nan,
            "may_be_best": summary.label in verdict.regrets if tested else None,
            "costs_at_most": _points(cost if tested else None),
        }
        rows.append(row)
    try:
        return importlib.import_module("pandas").DataFrame(rows)
    except ModuleNotFoundError:
        return rows


def _points(value: float | None) -> float:
    return math.nan if value is None else 100 * float(value)


def as_html(study: Runs) -> str:
    """Return answer, next step, table and cautions as HTML without scripts and styles."""
    standings = tables.standings(study).table
    step = next_step(study)
    parts = [f"<p><strong>{escape(headline(study))}</strong></p>"]
    if step:
        commands = "\n".join(step.commands)
        parts.append(f"<p>{escape(step.text)}</p>")
        parts += [f"<pre>{escape(commands)}</pre>"] if commands else []
    parts += [_html_table(standings.headers, standings.rows), f"<p>{escape(standings.note)}</p>"]
    found = cautions(study)
    if found:
        parts.append(f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in found)}</ul>")
    return printable("".join(parts))


def _html_table(headers: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
