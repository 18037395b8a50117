"""The contents of a report, in order."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from det_losses.report import analyses, answer, cautions, methods, records, tables, text
from det_losses.report.next_step import NextStep, next_step
from det_losses.report.runs import Runs
from det_losses.report.section import Section

logger = logging.getLogger(__name__)

_REFRESH = 30  # seconds between two reloads of an interim report
_MAX_ROWS = 20  # a section with a longer table is folded

Builder = Callable[[], Section | None]


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: the slots and the detector that were compared.
        subtitle: numbers of variants, runs, images and boxes.
        headline: the answer, or why there is none.
        next_step: what to do next; None if nothing is left to do.
        cautions: sentences about limitations of this comparison.
        standings: the table of variants.
        sections: the sections below that table.
        refresh: seconds after which a page reloads itself; 0: never.
    """

    title: str
    subtitle: str
    headline: str
    next_step: NextStep | None
    cautions: list[str]
    standings: tables.Standings
    sections: list[Section]
    refresh: int = 0


def document(study: Runs) -> Document:
    """Return the report of a study.

    A section without data is left out. A section that fails is replaced by a note, and its
    traceback is logged.
    """
    built = [_build(title, builder) for title, builder in _builders(study)]
    return Document(
        text.title(study),
        text.subtitle(study),
        answer.headline(study),
        next_step(study),
        cautions.cautions(study),
        tables.standings(study),
        [_folded(section) for section in built if section],
        _REFRESH if study.interim else 0,
    )


def _builders(study: Runs) -> list[tuple[str, Builder]]:
    """Return title and builder of each section, in the order of the report."""
    context = analyses.Context(study)
    return [
        ("Other metrics", partial(tables.other_metrics, study)),
        ("Seed variance and power", partial(text.power, study)),
        ("All pairs", partial(tables.pairs, study)),
        *((title, partial(build, context)) for title, build in analyses.BUILDERS.items()),
        ("Loss weights", partial(records.loss_weights, study)),
        ("Grid of two losses", partial(tables.factor_grid, study)),
        ("Differences between the variants", partial(records.what_differs, study)),
        ("Pretrained weights", partial(records.pretrained_weights, study)),
        ("Losses that ran", partial(records.losses_that_ran, study)),
        ("Cost of the losses", partial(records.costs, study)),
        ("Runs", partial(records.runs, study)),
        ("Data", partial(records.data, study)),
        ("Methods", partial(methods.methods, study)),
        ("How to reproduce", partial(records.reproduction, study)),
    ]


def _build(title: str, builder: Builder) -> Section | None:
    try:
        return builder()
    except Exception as error:
        logger.exception("Section %r of the report failed and is missing", title)
        reason = f"{type(error).__name__}: {error}"
        return Section(
            title,
            "This section is missing because of an error. The log of the command that wrote this "
            f"report (logger {__name__}) has the traceback.",
            codes=(reason,),
        )


def _folded(section: Section) -> Section:
    long = any(len(table.rows) > _MAX_ROWS for table in section.tables)
    return replace(section, folded=section.folded or long)
