"""COCO result files: those of a run, and those of another framework in the form of runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from det_losses.report.merge import Stored, read_json


def detection_files(run: Mapping[str, Any]) -> list[Path]:
    """Return the detections files of a run, the last evaluation's last."""
    return [Path(run["directory"], name) for name in run.get("detections") or ["detections.json"]]


def missing(run: Mapping[str, Any]) -> list[Path]:
    """Return those detections files of a run that are not there."""
    return [file for file in detection_files(run) if not file.is_file()]


def stored_of_files(truth_file: Path, files: Mapping[str, Sequence[Path]]) -> Stored:
    """Return result files as a comparison whose runs are done.

    Args:
        truth_file: the COCO json of the evaluated images.
        files: label -> one file a seed, in the same order for all labels.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no label, a label with more files than another, or a broken ground truth.
    """
    counts = {label: len(paths) for label, paths in files.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        given = ", ".join(f"{label} has {count}" for label, count in counts.items()) or "none"
        raise ValueError(
            f"each name needs as many result files as the others, one a seed in the same order: "
            f"{given}"
        )
    meta = {
        "variants": {label: {"changes": {}, "factors": {}} for label in files},
        "baseline": next(iter(files)),
        "seeds": list(range(max(counts.values()))),
    }
    runs = [
        _row(label, seed, Path(path).absolute())
        for label, paths in files.items()
        for seed, path in enumerate(paths)
    ]
    truth = read_json(truth_file, "name the COCO json of the evaluated images")
    return Stored(truth_file.parent, meta, runs, truth, truth_file)


def _row(label: str, seed: int, file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; name a COCO result json")
    return {
        "variant": label,
        "seed": seed,
        "status": "done",
        "metrics": {},
        "directory": str(file.parent),
        "detections": [file.name],
    }
