"""What all analyses start from: the variants, their styles, and facts about each run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from hotcoco import COCO

from det_losses.report.analyses.facts import Facts, examine
from det_losses.report.plotting import Style, styles
from det_losses.report.study import Study


@dataclass(frozen=True)
class Context:
    """A study, with what several analyses need of it.

    Attributes:
        study: the runs.
    """

    study: Study

    @cached_property
    def labels(self) -> list[str]:
        """The variants that are compared, the baseline first."""
        compared = self.study.compared
        return sorted(compared, key=lambda label: label != self.study.baseline)

    @cached_property
    def others(self) -> list[str]:
        """The variants that are compared with the baseline.

        None if the baseline is missing, or if there are no images to resample.
        """
        possible = self.study.baseline in self.labels and len(self.study.truth.image_ids) > 1
        return self.labels[1:] if possible else []

    @cached_property
    def styles(self) -> dict[str, Style]:
        """The style of each variant, compared or not."""
        return styles(self.study.labels, self.study.baseline)

    @cached_property
    def facts(self) -> dict[str, list[Facts]]:
        """Facts about each finished run of the variants that are compared, by seed."""
        truth, index = self.study.truth, COCO(self.study.coco)
        return {
            label: [
                examine(truth, index, self.study.detections(run), run["seed"])
                for run in self.study.done(label)
            ]
            for label in self.labels
        }

    @cached_property
    def evaluated(self) -> str:
        """What to say where runs stored more evaluations than the last one, which is looked at."""
        runs = [run for label in self.labels for run in self.study.done(label)]
        several = any(len(run.get("detections") or ()) > 1 for run in runs)
        return " It is about the last evaluation of each run." if several else ""

    def legend(self, labels: Sequence[str]) -> list[Style]:
        """Return the styles of some variants."""
        return [self.styles[label] for label in labels]

    def finished(self, label: str) -> list[dict[str, Any]]:
        """Return the rows of a variant's finished runs, by seed, with detections or without."""
        return [run for run in self.study.of(label) if run["status"] == "done"]

    @cached_property
    def boxes(self) -> np.ndarray:
        """Boxes that can be found, ``[K]`` by class."""
        truth = self.study.truth
        return np.bincount(truth.category_index[~truth.crowds], minlength=len(truth.names))
