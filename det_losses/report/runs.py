"""The runs of a comparison, with scores and statistics computed on demand."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from det_losses.errors import InputError, UserError, did_you_mean
from det_losses.evaluation.average_precision import Matches
from det_losses.evaluation.diagnosis import read_history
from det_losses.evaluation.ground_truth import GroundTruth, suspect
from det_losses.evaluation.matching import match
from det_losses.evaluation.metrics import MAX_DETS, METRICS
from det_losses.evaluation.resampling import draw_counts, resample
from det_losses.evaluation.result_file import read_detections
from det_losses.report.formats import listed
from det_losses.report.resampled import (
    RESAMPLING_SEED,
    Resampled,
    cache_key,
    load_cache,
    save_cache,
)
from det_losses.report.stored import (
    Stored,
    detection_files,
    merge,
    missing_detections,
    read_stored,
    stored_from_files,
)
from det_losses.statistics import Scores, Verdict, analyse

RESAMPLES = 1000
WITHIN = 0.01  # a difference of 1 point does not matter
CACHE_FILE = "resampled.npz"

_Runs = TypeVar("_Runs", bound="Runs")


class Runs:
    """The runs of one or several comparisons on one ground truth.

    Attributes:
        meta: metadata of all runs, as in results.json.
        runs: the rows of all runs; ``directory`` is the absolute path of a run's directory.
        labels: the variants, in the order of the plan.
        baseline: the variant that all others are compared with.
        metric: the primary metric.
        resamples: number of resamples of the images.
        within: differences up to this one do not matter, in 0..1.
        look: number of seeds of the scheduled look that this is; None if their number counts as
            fixed in advance.
        fork: where the runs fork (``epoch``, ``epochs``, ``baseline``); None if all of them were
            trained from scratch.
        coco: the ground truth of all runs as COCO json.
        truth: the same, prepared for matching.
        folds: number of folds, if the run with seed s is evaluated on the images of fold s modulo
            this number (:meth:`truth_of`); None if all runs are evaluated on all images.
        trained_by: the program that trained the runs, if it was not this package; None otherwise.
        max_dets: number of detections per image and class that were evaluated.
        interim: whether runs are still training, so that nothing is concluded yet.
        planned_metric: the metric that the comparison was planned for, if another one was chosen
            when its results were known; None if ``metric`` is the planned one.
        origins: the merged comparisons; empty for result files of other frameworks.
    """

    def __init__(
        self,
        merged: Stored,
        *,
        origins: Sequence[Stored] = (),
        baseline: str | None = None,
        metric: str | None = None,
        resamples: int | None = None,
        within: float | None = None,
        interim: bool = False,
    ) -> None:
        self.interim = interim
        self.meta, self.runs, self.coco = merged.meta, merged.runs, merged.truth
        self.origins = tuple(origins)
        self.labels = list(self.meta["variants"])
        self.baseline = _one_of(baseline or self.meta["baseline"], self.labels, "--baseline")
        self.truth = _ground_truth(merged.truth, merged.truth_file)
        self.folds: int | None = (self.meta.get("folds") or {}).get("count")
        self._parts: dict[int | None, tuple[dict[str, Any], GroundTruth]] = {}
        self._truth_file = merged.truth_file
        self.resamples = resamples or self.meta.get("resamples") or RESAMPLES
        self.within = within or self.meta.get("within") or WITHIN
        self.max_dets = self.meta.get("max_dets") or MAX_DETS
        looks = self.meta.get("looks")
        self.look = looks[-1]["seeds"] if looks else None
        self.fork: dict[str, Any] | None = self.meta.get("fork")
        self.trained_by: str | None = self.meta.get("trained_by")
        names = [*METRICS, *(f"AP/{name}" for name in self.truth.names)]
        stored = self.meta.get("metric") or "AP"
        self.metric = _one_of(metric or stored, names, "--metric")
        planned = self.meta.get("planned_metric") or stored
        self.planned_metric = planned if origins and self.metric != planned else None
        self._metrics = names
        self._damages: dict[tuple[Path, ...], str | None] = {}
        self._matches: dict[Path, Matches] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._resampled: dict[tuple[Path, ...], Resampled] = {}
        self._texts: dict[int | None, str] = {}

    @classmethod
    def load(
        cls: type[_Runs],
        dirs: str | Path | Sequence[str | Path],
        *,
        baseline: str | None = None,
        metric: str | None = None,
        resamples: int | None = None,
        within: float | None = None,
        interim: bool = False,
    ) -> _Runs:
        """Read the directories of comparisons and merge them.

        Args:
            dirs: a directory with results.json and ground_truth.json, or several.
            baseline: label of the baseline, if not the stored one.
            metric: the primary metric, if not the stored one.
            resamples: number of resamples of the images, if not the stored one.
            within: the difference that does not matter, in 0..1, if not the stored one.
            interim: whether runs of one of them are still training.

        Raises:
            MissingFileError: a file is missing.
            InputError: a file is invalid, or the comparisons cannot be merged.
        """
        folders = [dirs] if isinstance(dirs, (str, Path)) else dirs
        stored = [read_stored(Path(folder)) for folder in folders]
        return cls(
            merge(stored),
            origins=stored,
            baseline=baseline,
            metric=metric,
            resamples=resamples,
            within=within,
            interim=interim,
        )

    @classmethod
    def from_detections(
        cls: type[_Runs],
        truth_file: Path,
        files: Mapping[str, Sequence[Path]],
        *,
        baseline: str | None = None,
        metric: str | None = None,
        resamples: int | None = None,
        within: float | None = None,
        max_dets: int = MAX_DETS,
    ) -> _Runs:
        """Read COCO result files from any framework.

        Args:
            truth_file: the COCO json of the evaluated images.
            files: label -> one file per seed, in the same order for all labels.
            baseline: label of the baseline; the first if None.
            metric: the primary metric; AP if None.
            resamples: number of resamples of the images; 1,000 if None.
            within: the difference that does not matter, in 0..1; 0.01 if None.
            max_dets: number of detections per image and class to evaluate, those of highest score.

        Raises:
            MissingFileError: a file is missing.
            InputError: no label, unequal numbers of files, or an invalid file.
        """
        merged = stored_from_files(Path(truth_file), files, max_dets)
        runs = cls(merged, baseline=baseline, metric=metric, resamples=resamples, within=within)
        for file in itertools.chain(*files.values()):
            runs._match(Path(file).absolute(), runs.truth)
        return runs

    def runs_of(self, label: str) -> list[dict[str, Any]]:
        """Return all rows of a variant by seed, finished or not."""
        own = [run for run in self.runs if run["variant"] == label]
        return sorted(own, key=lambda run: run["seed"])

    def done(self, label: str) -> list[dict[str, Any]]:
        """Return the rows of a variant's finished runs whose detections can be used, by seed."""
        return [run for run in self.runs_of(label) if run["status"] == "done" and self.usable(run)]

    def usable(self, run: Mapping[str, Any]) -> bool:
        """Return whether a run's detections exist and are not damaged."""
        return not missing_detections(run) and self.damage(run) is None

    def damage(self, run: Mapping[str, Any]) -> str | None:
        """Return why the detections of a run of a comparison cannot be read; None if they can.

        Files of another framework are named by the user, so a damaged one is an error instead.
        """
        files = tuple(detection_files(run))
        if self.origins and files not in self._damages:
            self._damages[files] = self._fault(self.fold_of(run["seed"]), files)
        return self._damages.get(files)

    def coco_of(self, seed: int) -> dict[str, Any]:
        """Return the ground truth of the images on which a seed was evaluated, as COCO json."""
        return self._part(self.fold_of(seed))[0]

    def truth_of(self, seed: int) -> GroundTruth:
        """Return the same, prepared for matching."""
        return self._part(self.fold_of(seed))[1]

    def fold_of(self, seed: int) -> int | None:
        """Return the fold on which the runs of a seed were evaluated; None without folds."""
        return seed % self.folds if self.folds else None

    @property
    def evaluated_folds(self) -> list[int]:
        """The folds on which a finished run was evaluated; an empty list without folds."""
        done = [run for label in self.labels for run in self.done(label)]
        return sorted({run["seed"] % self.folds for run in done}) if self.folds else []

    def _part(self, fold: int | None) -> tuple[dict[str, Any], GroundTruth]:
        if fold is None:
            return self.coco, self.truth
        if fold not in self._parts:
            coco = _only_fold(self.coco, fold, self._truth_file)
            self._parts[fold] = coco, _ground_truth(coco, self._truth_file)
        return self._parts[fold]

    def cache(self, run: Mapping[str, Any], name: str) -> tuple[Path, str] | None:
        """Return file and key of a cache beside a run; None beside other frameworks' files.

        Args:
            run: the run.
            name: name of the file.
        """
        if not self.origins:
            return None
        files = detection_files(run)
        return files[0].parent / name, self._cache_key(self.fold_of(run["seed"]), files)

    def detections(self, run: Mapping[str, Any]) -> np.ndarray:
        """Return the detections of a run's last evaluation, [N, 7]."""
        return read_detections(detection_files(run)[-1])

    def history(self, run: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the valid lines of a run's history; an empty list without such a file."""
        return read_history(Path(run["directory"], run.get("history") or "history.jsonl"))

    @property
    def compared(self) -> list[str]:
        """The variants in the statistics: each pair of them has a finished seed in common.

        The baseline has priority, then variants with more finished seeds.
        """
        seeds = {label: {run["seed"] for run in self.done(label)} for label in self.labels}
        order = sorted(self.labels, key=lambda label: (label != self.baseline, -len(seeds[label])))
        chosen: list[str] = []
        for label in order:
            if seeds[label] and all(seeds[label] & seeds[other] for other in chosen):
                chosen.append(label)
        return [label for label in self.labels if label in chosen]

    @property
    def several_seeds(self) -> bool:
        """Whether a compared variant has more than one finished run."""
        return any(len(self.done(label)) > 1 for label in self.compared)

    @property
    def comparable(self) -> bool:
        """Whether the baseline has a finished run and there are at least two images."""
        return bool(self.done(self.baseline)) and len(self.truth.image_ids) > 1

    def scores(self, metric: str) -> dict[str, Scores]:
        """Return label -> scores of the compared variants.

        Raises:
            InputError: there is no such metric.
        """
        _one_of(metric, self._metrics, "metric")
        runs = {label: self.done(label) for label in self.compared}
        self._resample([run for own in runs.values() for run in own])
        return {label: self._scores(own, metric) for label, own in runs.items()}

    def verdict(self, metric: str | None = None) -> Verdict:
        """Return the statistics of one metric; of the primary metric if None.

        Raises:
            InputError: the baseline has no finished run, there is only one image, or no such
                metric.
        """
        metric = metric or self.metric
        if not self.comparable:
            raise InputError(
                f"a comparison requires a finished run of the baseline {self.baseline} and at "
                f"least two images, got {len(self.truth.image_ids)}"
            )
        if metric not in self._verdicts:
            self._verdicts[metric] = analyse(
                self.scores(metric),
                self.baseline,
                len(self.truth.image_ids),
                metric=metric,
                within=self.within,
                look=self.look if metric == self.metric else None,  # others are exploratory
                class_images=self.class_images(metric[3:]) if metric[:3] == "AP/" else None,
                folds=self.folds,
            )
        return self._verdicts[metric]

    def class_images(self, name: str) -> int:
        """Return the number of evaluated images with objects of a class, without crowds."""
        own = self.truth.category_index == self.truth.names.index(name)
        return len(np.unique(self.truth.image_index[own & ~self.truth.crowds]))

    def full(self, run: Mapping[str, Any]) -> dict[str, float]:
        """Return all metrics of a run on all its images, computed from its detections."""
        return self._resample([run])[0].full

    def _scores(self, runs: Sequence[Mapping[str, Any]], metric: str) -> Scores:
        numbers = self._resample(runs)
        return Scores(
            tuple(run["seed"] for run in runs),
            np.array([of_run.full[metric] for of_run in numbers]),
            np.stack([of_run.draws[metric] for of_run in numbers], axis=1),
        )

    def _fault(self, fold: int | None, files: tuple[Path, ...]) -> str | None:
        """Return why files cannot be read; what is in a cache could be read."""
        truth = self._part(fold)[1]
        try:
            if self._known(fold, files) is None:
                for file in files:
                    self._match(file, truth)
        except (UserError, OSError) as error:
            return str(error)
        return None

    def _resample(self, runs: Sequence[Mapping[str, Any]]) -> list["Resampled"]:
        """Return the metrics of runs: from memory, from their cache files, or computed."""
        wanted = [(self.fold_of(run["seed"]), tuple(detection_files(run))) for run in runs]
        absent = [(fold, files) for fold, files in wanted if self._known(fold, files) is None]
        for fold in dict.fromkeys(fold for fold, _ in absent):
            self._compute(fold, [files for other, files in absent if other == fold])
        return [self._resampled[files] for _, files in wanted]

    def _known(self, fold: int | None, files: tuple[Path, ...]) -> "Resampled | None":
        """Return the metrics of a run from memory or from its cache file, if they are there."""
        if files not in self._resampled and self.origins:
            found = load_cache(files[0].parent / CACHE_FILE, self._cache_key(fold, files))
            if found:
                self._resampled[files] = found
        return self._resampled.get(files)

    def _cache_key(self, fold: int | None, files: Sequence[Path]) -> str:
        if fold not in self._texts:
            self._texts[fold] = json.dumps(self._part(fold)[0])
        return cache_key(self._texts[fold], files, self.resamples, self.max_dets)

    def _compute(self, fold: int | None, runs: Sequence[tuple[Path, ...]]) -> None:
        """Add the metrics of runs on the same images, given by their detections files."""
        truth = self._part(fold)[1]
        matched = [[self._match(file, truth) for file in files] for files in runs]
        images = len(truth.image_ids)
        drawn = draw_counts(images, self.resamples, RESAMPLING_SEED)
        counts = np.concatenate([np.ones((1, images), drawn.dtype), drawn])  # first all images
        values = resample([matches for run in matched for matches in run], counts)
        start = 0
        for files in runs:
            columns = slice(start, start + len(files))
            start += len(files)
            means = {name: each[:, columns].mean(axis=1) for name, each in values.items()}
            full = {name: float(each[0]) for name, each in means.items()}
            result = Resampled(full, {name: each[1:] for name, each in means.items()})
            self._resampled[files] = result
            if self.origins:  # no caches next to other frameworks' files
                save_cache(files[0].parent / CACHE_FILE, self._cache_key(fold, files), result)

    def _match(self, file: Path, truth: GroundTruth) -> Matches:
        if file not in self._matches:
            rows = read_detections(file, truth if self.origins else None)
            if not self.origins:  # of other frameworks
                self.meta["notes"] += [f"{file.name}: {n}." for n in suspect(self.coco, rows)]
            try:
                self._matches[file] = match(truth, rows, self.max_dets)
            except ValueError as error:
                raise InputError(f"{file}: {error}") from None
        return self._matches[file]


def _ground_truth(coco: dict[str, Any], file: Path) -> GroundTruth:
    try:
        return GroundTruth(coco)
    except (ValueError, TypeError) as error:
        reason = str(error).removeprefix("ground truth: ")
        raise InputError(f"{file}: {reason}") from None


def _only_fold(coco: dict[str, Any], fold: int, file: Path) -> dict[str, Any]:
    """Return the part of a ground truth with the images of one fold."""
    if any("fold" not in image for image in coco["images"]):
        raise InputError(f"{file}: an image has no `fold`, but the runs were evaluated on folds")
    images = [image for image in coco["images"] if image["fold"] == fold]
    ids = {image["id"] for image in images}
    boxes = [box for box in coco["annotations"] if box["image_id"] in ids]
    return {**coco, "images": images, "annotations": boxes}


def _one_of(name: str, names: Sequence[str], what: str) -> str:
    if name not in names:
        hint = did_you_mean(name, names)
        raise InputError(f"{what} {name!r} is not one of {listed(names, limit=20)}. {hint}".strip())
    return name
