"""What a comparison shows beyond its verdict: one module a section."""

from det_losses.report.analyses import classes, errors, images, localisation, thresholds, training
from det_losses.report.analyses.context import Context
from det_losses.report.section import Section
from det_losses.report.study import Study


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
    found = [training.section(context)]
    if context.labels:
        parts = (thresholds, classes, localisation, errors, images)
        found = [*(part.section(context) for part in parts[:2]), *found]
        found += [part.section(context) for part in parts[2:]]
    return [section for section in found if section]
