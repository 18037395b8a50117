"""Differences between variants: simultaneous intervals, candidates for the best, groups."""

from det_losses.statistics.cautions import Caution, CautionKind
from det_losses.statistics.estimates import Scores
from det_losses.statistics.looks import LOOKS, look_error, next_look
from det_losses.statistics.verdict import Detectable, Difference, Summary, Verdict, analyse

__all__ = [
    "LOOKS",
    "Caution",
    "CautionKind",
    "Detectable",
    "Difference",
    "Scores",
    "Summary",
    "Verdict",
    "analyse",
    "look_error",
    "next_look",
]
