"""Reading and atomic writing of result files."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from det_losses.errors import InputError

# The files of a comparison's directory that `compare` writes and `report` reads, and the report.
PLAN_FILE, RESULTS_FILE, TRUTH_FILE = "plan.json", "results.json", "ground_truth.json"
REPORT_FILE = "report.html"


def file_hash(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, which is read in parts.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def check_work_dir(path: Path) -> None:
    """Check that a directory exists or can be made.

    Raises:
        InputError: it is a file, or a link to nothing.
    """
    for each in (path, *path.parents):
        if each.is_symlink() and not each.exists():
            target = os.readlink(each)
            raise InputError(f"--work-dir {path}: {each} is a link to {target}, which is missing")
    if path.exists() and not path.is_dir():
        raise InputError(f"--work-dir {path}: is a file, expected a directory")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text atomically: the old file stays until the new one is complete.

    Args:
        path: the file; missing folders are created.
        text: the new content.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write bytes atomically, like :func:`write_text`.

    Raises:
        OSError: it cannot be written; the error names the file, also if the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        if error.errno:  # the system names the part, or no file if the disk is full
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any, **options: Any) -> None:
    """Write ``value`` as JSON, atomically like :func:`write_text`.

    Args:
        path: the file; missing folders are created.
        value: anything that :mod:`json` can serialize.
        **options: options of :func:`json.dumps`, such as ``indent``.

    Raises:
        ValueError: ``value`` contains NaN or infinity, which JSON does not have.
    """
    write_text(path, json.dumps(value, allow_nan=False, **options) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the content of a JSON file, or None if the file does not exist."""
    path = Path(path)
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8"))


def read_whole_json(path: str | os.PathLike[str]) -> Any:
    """Return the content of a JSON file, or None if it does not exist or is damaged.

    A disk that was full, or a copy that was interrupted, leaves a part of a file.
    """
    try:
        return read_json(path)
    except (ValueError, OSError):  # not JSON, not UTF-8, not readable
        return None


def is_damaged(path: str | os.PathLike[str]) -> bool:
    """Return whether a file exists, but is not whole JSON."""
    return Path(path).exists() and read_whole_json(path) is None


def finite(value: Any) -> Any:
    """Replace every NaN and infinity in nested dicts and lists by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
