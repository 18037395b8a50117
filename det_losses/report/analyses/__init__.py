"""What a comparison shows beyond its verdict: one module a section."""

from collections.abc import Callable

from det_losses.report.analyses import classes, errors, images, localisation, thresholds, training
from det_losses.report.analyses.context import Context
from det_losses.report.section import Section
from det_losses.report.study import Study

BUILDERS: dict[str, Callable[[Context], Section | None]] = {
    thresholds.TITLE: thresholds.section,
    classes.TITLE: classes.section,
    classes.TABLE_TITLE: classes.table_section,
    training.TITLE: training.section,
    localisation.TITLE: localisation.section,
    errors.TITLE: errors.section,
    images.TITLE: images.section,
}
"""Title -> what builds the section, or returns None where there is no data for it."""


def sections(study: Study) -> list[Section]:
    """Return the report's sections below its verdict, without those that there is no data for.

    Args:
        study: the runs. Differences are to its baseline; where that has no finished run, variants
            are shown without them.

    Raises:
        FileNotFoundError: a file of a finished run is gone.
        ValueError: a file is broken.
    """
    context = Context(study)
    return [section for build in BUILDERS.values() if (section := build(context))]
