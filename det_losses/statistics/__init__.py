"""What differs, and how sure one can be: intervals, corrections for many tests, groups."""

from det_losses.statistics.answer import answer, caution
from det_losses.statistics.multiple import holm, letters
from det_losses.statistics.paired import (
    Difference,
    minimal_detectable,
    paired_differences,
)
from det_losses.statistics.scores import Scores
from det_losses.statistics.verdict import Summary, Verdict, analyse

__all__ = [
    "Difference",
    "Scores",
    "Summary",
    "Verdict",
    "analyse",
    "answer",
    "caution",
    "holm",
    "letters",
    "minimal_detectable",
    "paired_differences",
]
