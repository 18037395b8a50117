"""What a comparison shows beyond its verdict: one module a section."""

from collections.abc import Callable

from det_losses.report.analyses import classes, errors, images, localisation, thresholds, training
from det_losses.report.analyses.context import Context
from det_losses.report.section import Section
from det_losses.report.study import Study

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


def sections(study: Study) -> list[Section]:
    """Return the report's sections below its verdict, without those that there is no data for.

    Differences are to the study's baseline; where that has no finished run, variants are shown
    without them. A section that fails, for a file that is gone or broken, says so in its place.
    """
    context = Context(study)
    built = [_built(title, build, context) for title, build in BUILDERS.items()]
    return [section for section in built if section]


def _built(title: str, build: Builder, context: Context) -> Section | None:
    try:
        return build(context)
    except Exception as error:  # a report without one section is better than none
        return Section(title, f"This section could not be made. {type(error).__name__}: {error}")
