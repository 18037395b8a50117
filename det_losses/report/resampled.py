"""The metrics of a run on all images and on resamples of them, kept beside the run."""

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from det_losses.evaluation.average_precision import Matches
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.resampling import draw_counts, resample
from det_losses.evaluation.summary import ap_numbers
from det_losses.files import write_bytes

CACHE_FILE = "resampled.npz"
SEED = 0  # of the draws, the same for all runs of all reports: images are crossed with seeds
_FORMAT = "2"  # raise it when the numbers of a cache would change


@dataclass(frozen=True)
class Resampled:
    """The metrics of one run; of several detections files, their mean.

    Attributes:
        full: metric -> its value on all images, NaN where there is no ground truth.
        draws: metric -> ``[B]``, its value on each resample.
    """

    full: dict[str, float]
    draws: dict[str, np.ndarray]


def cache_key(truth: str, files: Sequence[Path], resamples: int) -> str:
    """Return what a run's numbers depend on, as SHA-256.

    Args:
        truth: the text of the ground truth's COCO json.
        files: the run's detections.
        resamples: number of draws.
    """
    digest = hashlib.sha256(json.dumps([_FORMAT, resamples, SEED, truth]).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


class Bootstrap:
    """The numbers of runs, each computed once.

    Args:
        truth: the ground truth.
        coco: its COCO json.
        resamples: number of draws of images.
        matches: returns the matches of a detections file.
        cached: whether the numbers are kept beside the runs.
    """

    def __init__(
        self,
        truth: GroundTruth,
        coco: Mapping[str, Any],
        resamples: int,
        matches: Callable[[Path], Matches],
        cached: bool,
    ) -> None:
        self._truth, self._resamples, self._matches = truth, resamples, matches
        self._coco, self._cached = json.dumps(coco), cached
        self._known: dict[tuple[Path, ...], Resampled] = {}

    def of(self, runs: Sequence[Sequence[Path]]) -> list[Resampled]:
        """Return the numbers of runs, each given by its detections files."""
        keys = {tuple(files): "" for files in runs if tuple(files) not in self._known}
        if self._cached:
            for files in keys:
                keys[files] = cache_key(self._coco, files, self._resamples)
                found = _load(files[0].parent / CACHE_FILE, keys[files])
                if found:
                    self._known[files] = found
        absent = [files for files in keys if files not in self._known]
        matched = [[self._matches(file) for file in files] for files in absent]
        for files, result in zip(absent, self._compute(matched), strict=True):
            self._known[files] = result
            if self._cached:
                _save(files[0].parent / CACHE_FILE, keys[files], result)
        return [self._known[tuple(files)] for files in runs]

    def _compute(self, runs: Sequence[Sequence[Matches]]) -> list[Resampled]:
        if not runs:
            return []
        counts = draw_counts(len(self._truth.image_ids), self._resamples, SEED)
        drawn = resample([matches for run in runs for matches in run], counts)
        results, start = [], 0
        for run in runs:
            columns = slice(start, start + len(run))
            start += len(run)
            full = [ap_numbers(matches.average_precision(), self._truth.names) for matches in run]
            results.append(
                Resampled(
                    {name: float(np.mean([values[name] for values in full])) for name in full[0]},
                    {name: values[:, columns].mean(axis=1) for name, values in drawn.items()},
                )
            )
        return results


def _load(file: Path, key: str) -> Resampled | None:
    """Return the numbers of a cache, or None where it is missing, broken or of something else."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            names = stored["names"].tolist()
            return Resampled(
                dict(zip(names, stored["full"].tolist(), strict=True)),
                dict(zip(names, stored["draws"], strict=True)),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _save(file: Path, key: str, resampled: Resampled) -> None:
    """Write the cache atomically; where the folder cannot be written, leave it."""
    content = io.BytesIO()
    names = list(resampled.full)
    np.savez(
        content,
        key=np.array(key),
        names=np.array(names),
        full=np.array([resampled.full[name] for name in names]),
        draws=np.array([resampled.draws[name] for name in names]),
    )
    with contextlib.suppress(OSError):
        write_bytes(file, content.getvalue())
