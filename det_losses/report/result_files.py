"""COCO result files of another framework, in the form of a comparison's runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from det_losses.report.merge import Stored, read_json


def stored_of_files(truth_file: Path, files: Mapping[str, Sequence[Path]]) -> Stored:
    """Return result files as a comparison whose runs are done.

    Args:
        truth_file: the COCO json of the evaluated images.
        files: label -> one file a seed, in the same order for all labels.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no label, a label with more files than another or one file twice, or a broken
            ground truth.
    """
    counts = {label: len(paths) for label, paths in files.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        given = ", ".join(f"{label} has {count}" for label, count in counts.items()) or "none"
        raise ValueError(
            f"each name needs as many result files as the others, one a seed in the same order: "
            f"{given}"
        )
    for label, paths in files.items():
        if len({Path(path).resolve() for path in paths}) < len(paths):
            raise ValueError(
                f"{label} names one file twice: each seed has a result file of its own"
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
