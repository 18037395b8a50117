"""What every loss must hold to: a suite that runs over any registered loss, a user's too.

A check is a function of a :class:`Case` that returns nothing, or raises :class:`Failed` or
:class:`Skipped` with a sentence. ``run(case_of("CIoULoss"))`` makes them all.
"""

from det_losses.conformance.case import Case, Failed, Inputs, Reference, Skipped
from det_losses.conformance.inputs import example_inputs
from det_losses.conformance.suite import (
    CHECKS,
    SLOW,
    Result,
    case_of,
    explained,
    references_of,
    registered,
    run,
)

__all__ = [
    "CHECKS",
    "SLOW",
    "Case",
    "Failed",
    "Inputs",
    "Reference",
    "Result",
    "Skipped",
    "case_of",
    "example_inputs",
    "explained",
    "references_of",
    "registered",
    "run",
]
