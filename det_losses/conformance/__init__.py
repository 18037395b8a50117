"""A conformance suite for registered losses, including those of other packages.

A check is a function of a :class:`Case` that returns None, or raises :class:`Failed` or
:class:`Skipped` with a message. ``run(case_of("CIoULoss"))`` runs all of them.
"""

from det_losses.conformance.case import Case, Failed, Inputs, Reference, Skipped, example_inputs
from det_losses.conformance.suite import (
    CHECKS,
    SLOW,
    Result,
    case_of,
    collect_references,
    explanation,
    registered_losses,
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
    "collect_references",
    "example_inputs",
    "explanation",
    "registered_losses",
    "run",
]
