"""What a comparison shows beyond its verdict: one module a section."""

from collections.abc import Callable

from det_losses.report.analyses import classes, errors, images, localisation, thresholds, training
from det_losses.report.analyses.context import Context
from det_losses.report.section import Section

__all__ = ["BUILDERS", "Context"]

Builder = Callable[[Context], Section | None]

BUILDERS: dict[str, Builder] = {
    thresholds.TITLE: thresholds.section,
    classes.TITLE: classes.section,
    classes.TABLE_TITLE: classes.table_section,
    training.TITLE: training.section,
    localisation.TITLE: localisation.section,
    errors.TITLE: errors.section,
    images.TITLE: images.section,
}
"""Title -> what builds the section, or returns None where there is no data for it."""
