"""JSON files of a comparison, in which what is not finite is null."""

from pathlib import Path
from typing import Any

from det_losses import files


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; numbers that are not finite become null, as JSON has no NaN."""
    files.write_json(path, files.finite(value), indent=2, default=str)
