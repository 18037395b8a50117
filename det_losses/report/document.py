"""The contents of a report, in order, for whatever writes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from det_losses.report import analyses, records, tables, variants, words
from det_losses.report.cautions import cautions
from det_losses.report.section import Part, Section
from det_losses.report.standings import Standings, standings
from det_losses.report.study import Study


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: what was compared.
        subtitle: on how much data.
        headline: the answer, or why there is none.
        cautions: sentences on what to be careful about.
        standings: the table of variants.
        parts: everything below it.
    """

    title: str
    subtitle: str
    headline: str
    cautions: list[str]
    standings: Standings
    parts: list[Part]


_MOST_ROWS = 20  # of a table of the analyses that a page shows unasked

Builder = Callable[[Study], Part | Sequence[Part] | None]


def document(study: Study) -> Document:
    """Return the report of a study."""
    builders: list[tuple[str, Builder]] = [
        ("Other metrics", tables.other_metrics),
        ("Spread and what can be found", words.spread),
        ("All pairs", tables.pairs),
        ("Analyses", _analyses),
        ("Loss weights", variants.loss_weights),
        ("Grid of two losses", tables.factor_grid),
        ("What differs", variants.what_differs),
        ("Proof that the loss ran", records.proof),
        ("Runs", records.runs),
        ("Data", records.data),
        ("How it was done", words.method),
        ("How to repeat it", records.how_to_repeat),
    ]
    return Document(
        words.title(study),
        words.subtitle(study),
        words.headline(study),
        cautions(study),
        standings(study),
        [part for title, build in builders for part in _built(title, build, study)],
    )


def _built(title: str, build: Builder, study: Study) -> Sequence[Part]:
    """Return what a builder gives; where it fails, a section that says so in its place."""
    try:
        found = build(study)
    except Exception as error:  # a report without one section is better than none
        kind = type(error).__name__
        return [Part(Section(title, "This section could not be made."), (f"{kind}: {error}",))]
    if found is None:
        return []
    return [found] if isinstance(found, Part) else found


def _analyses(study: Study) -> list[Part]:
    return [Part(section, folded=_is_long(section)) for section in analyses.sections(study)]


def _is_long(section: Section) -> bool:
    return any(len(table.rows) > _MOST_ROWS for table in section.tables)
