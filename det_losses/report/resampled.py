"""The metrics of a run on all images and on resamples of them, and their cache."""

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from det_losses.files import write_bytes

RESAMPLING_SEED = (
    0  # of the resamples: the same for all runs, because images are crossed with seeds
)


_FORMAT = "2"  # increment it when the cached numbers change


@dataclass(frozen=True)
class Resampled:
    """The metrics of one run; means if it has several detections files.

    Attributes:
        full: metric -> value on all images, NaN where there is no ground truth.
        draws: metric -> ``[B]``, its value on each resample.
    """

    full: dict[str, float]
    draws: dict[str, np.ndarray]


def cache_key(truth: str, files: Sequence[Path], resamples: int, max_dets: int) -> str:
    """Return a SHA-256 of everything that the metrics of a run depend on.

    Args:
        truth: the ground truth's COCO json as text.
        files: the run's detections files.
        resamples: number of resamples.
        max_dets: number of detections per image and class that are evaluated.
    """
    numbers = [_FORMAT, resamples, max_dets, RESAMPLING_SEED, truth]
    digest = hashlib.sha256(json.dumps(numbers).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def load_cache(file: Path, key: str) -> Resampled | None:
    """Return the cached metrics; None if the cache is missing, damaged or has another key."""
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


def save_cache(file: Path, key: str, resampled: Resampled) -> None:
    """Write the cache atomically; do nothing if the folder cannot be written."""
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
