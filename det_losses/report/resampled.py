"""The metrics of a run on all images and on resamples of them, and their cache."""

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from det_losses.files import file_hash, write_bytes

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
    digest = hashlib.sha256(_settings(truth, resamples, max_dets))
    for file in files:
        digest.update(_file_digest(file, file.stat().st_mtime_ns))
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _settings(truth: str, resamples: int, max_dets: int) -> bytes:
    return json.dumps([_FORMAT, resamples, max_dets, RESAMPLING_SEED, truth]).encode()


@lru_cache(maxsize=1024)
def _file_digest(file: Path, modified: int) -> bytes:
    return bytes.fromhex(file_hash(file))


def load_arrays(file: Path, key: str) -> dict[str, np.ndarray] | None:
    """Return cached arrays; None if the cache is missing, damaged or has another key."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            return dict(stored) if str(stored["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def save_arrays(file: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a cache atomically; do nothing if the folder cannot be written."""
    content = io.BytesIO()
    np.savez(content, key=np.array(key), **arrays)
    with contextlib.suppress(OSError):
        write_bytes(file, content.getvalue())


def load_cache(file: Path, key: str) -> Resampled | None:
    """Return the cached metrics of a run; None as in :func:`load_arrays`."""
    stored = load_arrays(file, key)
    if stored is None:
        return None
    try:
        names = stored["names"].tolist()
        return Resampled(
            dict(zip(names, stored["full"].tolist(), strict=True)),
            dict(zip(names, stored["draws"], strict=True)),
        )
    except (ValueError, KeyError):
        return None


def save_cache(file: Path, key: str, resampled: Resampled) -> None:
    """Write the metrics of a run as :func:`save_arrays` does."""
    names = list(resampled.full)
    arrays = {
        "names": np.array(names),
        "full": np.array([resampled.full[name] for name in names]),
        "draws": np.array([resampled.draws[name] for name in names]),
    }
    save_arrays(file, key, arrays)
