"""The sections of a report on AP by threshold and class, training, errors and example images."""

from collections.abc import Callable

from det_losses.report.analyses.ap_breakdown import (
    class_section,
    class_table_section,
    precision_recall_section,
    threshold_section,
)
from det_losses.report.analyses.context import Context
from det_losses.report.analyses.detection_errors import (
    confusion_section,
    error_section,
    localisation_section,
)
from det_losses.report.analyses.example_images import image_section
from det_losses.report.analyses.training import training_section
from det_losses.report.section import Section

__all__ = ["BUILDERS", "Builder", "Context"]

Builder = Callable[[Context], Section | None]

BUILDERS: dict[str, Builder] = {
    "AP against IoU threshold": threshold_section,
    "Precision and recall": precision_recall_section,
    "Classes and sizes": class_section,
    "AP of each class": class_table_section,
    "Training": training_section,
    "Localisation": localisation_section,
    "Error types": error_section,
    "Confusion of classes": confusion_section,
    "Images that differ most": image_section,
}
"""Title -> builder, which returns None if there is no data for the section.

Differences are to the study's baseline. If it has no finished run, no differences are shown.
"""
