"""Shared input of the analyses: variants, styles, scores and tables of differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from hotcoco import COCO

from det_losses.report.analyses.detection_stats import (
    DetectionStats,
    as_arrays,
    detection_stats,
    from_arrays,
    nan_mean,
)
from det_losses.report.formats import NO_INTERVAL, difference, no_interval, points
from det_losses.report.plotting import Style, styles
from det_losses.report.resampled import load_arrays, save_arrays
from det_losses.report.runs import Runs
from det_losses.report.section import Table
from det_losses.statistics import Difference

STATS_FILE = "detection_stats.npz"


@dataclass(frozen=True)
class Context:
    """A study, with derived values that several analyses use.

    Attributes:
        study: the runs.
    """

    study: Runs

    @cached_property
    def labels(self) -> list[str]:
        """The compared variants, the baseline first."""
        compared = self.study.compared
        return sorted(compared, key=lambda label: label != self.study.baseline)

    @cached_property
    def others(self) -> list[str]:
        """The variants that are compared with the baseline.

        Empty if the baseline has no finished run, or if there are too few images to resample.
        """
        possible = self.study.baseline in self.labels and len(self.study.truth.image_ids) > 1
        return self.labels[1:] if possible else []

    @cached_property
    def styles(self) -> dict[str, Style]:
        """The style of each variant, compared or not."""
        return styles(self.study.labels, self.study.baseline)

    @cached_property
    def detection_stats(self) -> dict[str, list[DetectionStats]]:
        """Statistics of the detections of each finished run, by compared variant and seed.

        Scores are of all images, NaN for those on which a run was not evaluated.
        """
        study = self.study

        def of_run(run: dict[str, Any]) -> DetectionStats:
            truth = study.truth_of(run["seed"])
            found = self._stats_of(run)
            scores = np.full(len(study.truth.image_ids), np.nan)
            scores[np.searchsorted(study.truth.image_ids, truth.image_ids)] = found.image_scores
            return replace(found, image_scores=scores)

        return {label: [of_run(run) for run in study.done(label)] for label in self.labels}

    def _stats_of(self, run: dict[str, Any]) -> DetectionStats:
        """Return the statistics of a run from its cache, or compute them."""
        study, seed = self.study, run["seed"]
        cache = study.cache(run, STATS_FILE)
        if cache and (stored := load_arrays(*cache)) and (found := from_arrays(seed, stored)):
            return found
        fold = study.fold_of(seed)
        if fold not in self._indices:
            self._indices[fold] = COCO(study.coco_of(seed))
        truth, rows = study.truth_of(seed), study.detections(run)
        found = detection_stats(truth, self._indices[fold], rows, seed, study.max_dets)
        if cache:
            save_arrays(*cache, as_arrays(found))
        return found

    @cached_property
    def _indices(self) -> dict[int | None, COCO]:
        """The index of the ground truth of each fold that is needed."""
        return {}

    @cached_property
    def found_nothing(self) -> bool:
        """Whether no detection of any compared run is correct, so that all AP are 0."""
        scores = self.study.scores("AP50").values()
        return not any(np.nan_to_num(own.full).any() for own in scores)

    @cached_property
    def several_seeds(self) -> bool:
        """Whether a compared variant has more than one finished run."""
        return self.study.several_seeds

    @property
    def variation(self) -> str:
        """What the intervals are over."""
        if self.study.folds:
            return "folds"
        return "seeds and images" if self.several_seeds else "images"

    @property
    def over_seeds(self) -> str:
        """The words that say that a value is a mean over seeds; empty with one seed."""
        return ", mean over seeds" if self.several_seeds else ""

    @property
    def mean_text(self) -> str:
        """What a mean with its standard deviation is: over what, or that there is only one run."""
        over = "folds" if self.study.folds else "seeds"
        return f"mean over {over} ± standard deviation" if self.several_seeds else "one run each"

    @cached_property
    def last_evaluation_note(self) -> str:
        """A sentence for analyses that use only the last of several stored evaluations."""
        runs = [run for label in self.labels for run in self.study.done(label)]
        several = any(len(run.get("detections") or ()) > 1 for run in runs)
        return " Only the last evaluation of each run is analysed." if several else ""

    @cached_property
    def boxes(self) -> np.ndarray:
        """Number of boxes of each class, without crowds, ``[K]``."""
        truth = self.study.truth
        return np.bincount(truth.category_index[~truth.crowds], minlength=len(truth.names))

    def legend(self, labels: Sequence[str]) -> list[Style]:
        """Return the styles of the given variants."""
        return [self.styles[label] for label in labels]

    def finished(self, label: str) -> list[dict[str, Any]]:
        """Return the rows of a variant's finished runs by seed, with or without detections."""
        return [run for run in self.study.runs_of(label) if run["status"] == "done"]

    def differences(self, metric: str) -> dict[str, Difference]:
        """Return each variant's difference to the baseline; empty without a finished baseline."""
        if not self.others:
            return {}
        return {found.first: found for found in self.study.verdict(metric).against_baseline}

    def difference_table(
        self, headers: Sequence[str], rows: Sequence[tuple[Sequence[str], str]], note: str = ""
    ) -> Table:
        """Return a table of each variant's mean and its difference to the baseline.

        Args:
            headers: headers of the first columns.
            rows: for each row, the texts of the first columns and the metric.
            note: a sentence to append to the note of the table.
        """
        table = []
        for cells, metric in rows:
            found, scores = self.differences(metric), self.study.scores(metric)
            values = [
                mean_and_difference(float(nan_mean(scores[label].full)), found.get(label))
                for label in self.labels
            ]
            table.append([*cells, *values])
        text = f"AP in points{self.over_seeds}"
        if self.others:
            text += (
                f", and below it the difference to {self.labels[0]} with its 95% interval over "
                f"{self.variation}, not adjusted for the number of rows"
            )
        every = [found for _, metric in rows for found in self.differences(metric).values()]
        reason = NO_INTERVAL if any(no_interval(found.low, found.high) for found in every) else ""
        sentences = " ".join(filter(None, [f"{text}.", note, reason]))
        return Table([*headers, *self.labels], table, sentences)


def mean_and_difference(mean: float, found: Difference | None) -> str:
    """Return a mean, and on a second line the difference, if there is one."""
    if found is None or math.isnan(found.value):
        return points(mean)
    return f"{points(mean)}\n{difference(found.value, found.low, found.high)}"
