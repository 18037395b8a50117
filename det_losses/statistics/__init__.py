"""Differences between variants: intervals, adjusted p-values, letter groups."""

from det_losses.statistics.multiple import holm, letters
from det_losses.statistics.paired import (
    Difference,
    Scores,
    detectable_after_holm,
    minimal_detectable,
    paired_differences,
)
from det_losses.statistics.verdict import Summary, Verdict, analyse

__all__ = [
    "Difference",
    "Scores",
    "Summary",
    "Verdict",
    "analyse",
    "detectable_after_holm",
    "holm",
    "letters",
    "minimal_detectable",
    "paired_differences",
]
