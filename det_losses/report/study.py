"""What a report is about: the runs of a comparison, with their scores when asked for."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from det_losses.evaluation.average_precision import Matches
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import match
from det_losses.evaluation.metrics import METRICS
from det_losses.evaluation.result_file import read_detections
from det_losses.report.formats import listed
from det_losses.report.merge import Stored, detection_files, merge, missing, read_stored
from det_losses.report.resampled import Bootstrap
from det_losses.report.result_files import stored_of_files
from det_losses.statistics import Scores, Verdict, analyse

RESAMPLES = 1000
_BASELINE_COLOUR = "#808080"
# Okabe and Ito's palette without its yellow and black, then four of Tol's: told apart by
# colour-blind readers, and seen on white and on near-black.
_COLOURS = (
    *("#1a80c4", "#d55e00", "#009e73", "#cc79a7", "#e69f00"),
    *("#56b4e9", "#aa4499", "#999933", "#44aa99", "#cc6677"),
)


class Study:
    """The runs of one or several comparisons on one ground truth.

    Attributes:
        meta: what holds for all runs, as results.json says it.
        runs: all rows; ``directory`` is the absolute path of a run's directory.
        labels: the variants, in the order of the plan.
        baseline: the variant that the others are compared with.
        metric: the primary metric.
        resamples: number of draws of images.
        coco: the ground truth's COCO json.
        truth: the same, ready to be matched.
        origins: the comparisons that were merged; empty for detections from elsewhere.
    """

    def __init__(
        self,
        merged: Stored,
        *,
        origins: Sequence[Stored] = (),
        baseline: str | None = None,
        metric: str | None = None,
        resamples: int | None = None,
    ) -> None:
        self.meta, self.runs, self.coco = merged.meta, merged.runs, merged.truth
        self.origins = tuple(origins)
        self.labels = list(self.meta["variants"])
        self.baseline = _one_of(baseline or self.meta["baseline"], self.labels, "baseline")
        self.truth = _ground_truth(merged)
        self.resamples = resamples or self.meta.get("resamples") or RESAMPLES
        names = [*METRICS, *(f"AP/{name}" for name in self.truth.names)]
        self.metric = _one_of(metric or self.meta.get("metric") or "AP", names, "metric")
        self._metrics = names
        self._matches: dict[Path, Matches] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._bootstrap = Bootstrap(
            self.truth, self.coco, self.resamples, self._match, cached=bool(origins)
        )

    @classmethod
    def load(
        cls,
        dirs: Sequence[Path],
        *,
        baseline: str | None = None,
        metric: str | None = None,
        resamples: int | None = None,
    ) -> "Study":
        """Read the directories of comparisons, and merge them.

        Args:
            dirs: one or several directories with results.json and ground_truth.json.
            baseline: label of the baseline, if not the stored one.
            metric: the primary metric, if not the stored one.
            resamples: number of draws of images, if not the stored one.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is broken, or the comparisons do not fit together.
        """
        stored = [read_stored(Path(folder)) for folder in dirs]
        return cls(
            merge(stored), origins=stored, baseline=baseline, metric=metric, resamples=resamples
        )

    @classmethod
    def of_detections(
        cls,
        truth_file: Path,
        files: Mapping[str, Sequence[Path]],
        *,
        baseline: str | None = None,
        metric: str | None = None,
        resamples: int | None = None,
    ) -> "Study":
        """Take COCO result files from any framework.

        Args:
            truth_file: the COCO json of the evaluated images.
            files: label -> one file a seed, in the same order for all labels.
            baseline: label of the baseline; the first if None.
            metric: the primary metric; AP if None.
            resamples: number of draws of images; 1,000 if None.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: no label, a label with more files than another, or a broken file.
        """
        merged = stored_of_files(Path(truth_file), files)
        return cls(merged, baseline=baseline, metric=metric, resamples=resamples)

    def of(self, label: str) -> list[dict[str, Any]]:
        """Return the rows of a variant by seed, whatever became of them."""
        own = [run for run in self.runs if run["variant"] == label]
        return sorted(own, key=lambda run: run["seed"])

    def done(self, label: str) -> list[dict[str, Any]]:
        """Return the rows of a variant's finished runs whose detections are there, by seed."""
        return [run for run in self.of(label) if run["status"] == "done" and not missing(run)]

    def detections(self, run: Mapping[str, Any]) -> np.ndarray:
        """Return the detections of a run's last evaluation, [N, 7]."""
        return read_detections(detection_files(run)[-1])

    def matches(self, run: Mapping[str, Any]) -> Matches:
        """Return the matches of a run's last evaluation."""
        return self._match(detection_files(run)[-1])

    def history(self, run: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what can be read of a run's history; nothing where there is no such file."""
        file = Path(run["directory"], run.get("history") or "history.jsonl")
        if not file.is_file():
            return []
        found = []
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # half a line, where a machine stopped
                found.append(json.loads(line))
        return found

    @property
    def compared(self) -> list[str]:
        """The variants that enter the statistics: finished, with a seed in common with all others.

        The baseline comes first; then what has more finished seeds is preferred.
        """
        seeds = {label: {run["seed"] for run in self.done(label)} for label in self.labels}
        order = sorted(self.labels, key=lambda label: (label != self.baseline, -len(seeds[label])))
        chosen: list[str] = []
        for label in order:
            if seeds[label] and all(seeds[label] & seeds[other] for other in chosen):
                chosen.append(label)
        return [label for label in self.labels if label in chosen]

    @property
    def comparable(self) -> bool:
        """Whether anything can be compared: with a finished run of the baseline, on two images."""
        return bool(self.done(self.baseline)) and len(self.truth.image_ids) > 1

    def scores(self, metric: str) -> dict[str, Scores]:
        """Return label -> scores of the variants that are compared.

        Raises:
            ValueError: no such metric.
        """
        _one_of(metric, self._metrics, "metric")
        runs = {label: self.done(label) for label in self.compared}
        self._bootstrap.of([detection_files(run) for own in runs.values() for run in own])
        return {label: self._scores(own, metric) for label, own in runs.items()}

    def verdict(self, metric: str | None = None) -> Verdict:
        """Return what one metric says; the primary metric if None.

        Raises:
            ValueError: no finished run of the baseline, a single image, or no such metric.
        """
        metric = metric or self.metric
        if not self.comparable:
            raise ValueError(
                f"nothing can be compared: it needs a finished run of the baseline {self.baseline} "
                f"and two images, there are {len(self.truth.image_ids)}"
            )
        if metric not in self._verdicts:
            images = len(self.truth.image_ids)
            scores = self.scores(metric)
            self._verdicts[metric] = analyse(scores, self.baseline, images, metric=metric)
        return self._verdicts[metric]

    def full(self, run: Mapping[str, Any]) -> dict[str, float]:
        """Return all metrics of a run on all images, computed from its detections."""
        return self._bootstrap.of([detection_files(run)])[0].full

    def colour(self, label: str) -> str:
        """Return the variant's colour; grey for the baseline."""
        if label == self.baseline:
            return _BASELINE_COLOUR
        others = [other for other in self.labels if other != self.baseline]
        return _COLOURS[others.index(label) % len(_COLOURS)]

    def _match(self, file: Path) -> Matches:
        if file not in self._matches:
            rows = read_detections(file)
            try:
                self._matches[file] = match(self.truth, rows)
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from None
        return self._matches[file]

    def _scores(self, runs: Sequence[Mapping[str, Any]], metric: str) -> Scores:
        numbers = self._bootstrap.of([detection_files(run) for run in runs])
        return Scores(
            tuple(run["seed"] for run in runs),
            np.array([of_run.full[metric] for of_run in numbers]),
            np.stack([of_run.draws[metric] for of_run in numbers], axis=1),
        )


def _ground_truth(merged: Stored) -> GroundTruth:
    try:
        return GroundTruth(merged.truth)
    except (ValueError, TypeError) as error:
        reason = str(error).removeprefix("ground truth: ")
        raise ValueError(f"{merged.truth_file}: {reason}") from None


def _one_of(name: str, names: Sequence[str], what: str) -> str:
    if name not in names:
        raise ValueError(f"{what} {name!r} is none of {listed(list(names), most=20)}")
    return name
