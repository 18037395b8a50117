"""Read stored results: one comparison's directory, several merged ones, or COCO result files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from det_losses.config_diff import describe, differences
from det_losses.errors import InputError, MissingFileError
from det_losses.evaluation.ground_truth import read_truth
from det_losses.files import PLAN_FILE, RESULTS_FILE, TRUTH_FILE

_SHARED = ("detector", "components", "config", "classes", "images", "fork")


@dataclass(frozen=True)
class Stored:
    """The contents of one comparison's directory.

    Attributes:
        folder: the directory.
        meta: metadata of all runs.
        runs: the rows of the runs, each with the absolute path of its ``directory``.
        truth: the COCO json of exactly the evaluated images and classes.
        truth_file: the file of ``truth``.
    """

    folder: Path
    meta: dict[str, Any]
    runs: list[dict[str, Any]]
    truth: dict[str, Any]
    truth_file: Path


def read_stored(folder: Path) -> Stored:
    """Read a comparison's directory.

    Raises:
        MissingFileError: results.json or ground_truth.json is missing.
        InputError: one of them is not JSON, or does not describe a comparison.
    """
    file = folder / RESULTS_FILE
    results = _read_json(file, "give the directory of a comparison")
    meta, rows = _checked_results(file, results)
    runs = [
        {**row, "directory": str((folder / row.get("work_dir", ".")).resolve())} for row in rows
    ]
    truth_file = folder / TRUTH_FILE
    truth = _read_json(truth_file, "run the comparison again: the statistics need this file")
    return Stored(folder, meta, runs, truth, truth_file)


def merge(stored: Sequence[Stored]) -> Stored:
    """Return several comparisons as one with all variants, seeds and notes.

    Baseline, metric and command are those of the first comparison. The image folder is the first
    one that exists.

    Raises:
        InputError: they differ in config or ground truth, have one label for different variants, or
            different results for the same run.
    """
    first, *others = stored
    for other in others:
        _check_shared(first, other)
    runs = _merged_runs(stored)
    notes = list(dict.fromkeys(note for part in stored for note in part.meta.get("notes") or []))
    seeds = sorted({run["seed"] for run in runs})
    meta = {**first.meta, "variants": _merged_variants(stored), "seeds": seeds, "notes": notes}
    folders = [part.meta.get("image_dir") for part in stored]
    meta["image_dir"] = next((f for f in folders if f and Path(f).is_dir()), folders[0])
    return Stored(first.folder, meta, runs, first.truth, first.truth_file)


def stored_from_files(truth_file: Path, files: Mapping[str, Sequence[Path]]) -> Stored:
    """Return COCO result files from any framework as a comparison with finished runs.

    Args:
        truth_file: the COCO json of the evaluated images.
        files: label -> one file per seed, in the same order for all labels.

    Raises:
        MissingFileError: a file is missing.
        InputError: no label, unequal numbers of files, a file given twice for one label, or a
            ground truth that is not valid or has no boxes.
    """
    counts = {label: len(paths) for label, paths in files.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        given = ", ".join(f"{label} has {count}" for label, count in counts.items()) or "none"
        raise InputError(
            f"each name needs the same number of result files, one per seed in the same order: "
            f"{given}"
        )
    for label, paths in files.items():
        if len({Path(path).resolve() for path in paths}) < len(paths):
            raise InputError(f"{label} has the same file twice; give a different file per seed")
    meta = {
        "variants": {label: {"changes": {}, "factors": {}} for label in files},
        "baseline": next(iter(files)),
        "seeds": list(range(max(counts.values()))),
    }
    runs = [
        _row_of_file(label, seed, Path(path).absolute())
        for label, paths in files.items()
        for seed, path in enumerate(paths)
    ]
    truth, notes = read_truth(truth_file)
    if all(annotation.get("iscrowd") for annotation in truth["annotations"]):
        reason = "; ".join(notes) or "it has no annotations"
        raise InputError(f"{truth_file}: no box to compare detections with: {reason}")
    meta["notes"] = [f"{truth_file.name}: {note}." for note in notes]
    return Stored(truth_file.parent, meta, runs, truth, truth_file)


def detection_files(run: Mapping[str, Any]) -> list[Path]:
    """Return the detections files of a run, that of the last evaluation last."""
    return [Path(run["directory"], name) for name in run.get("detections") or ["detections.json"]]


def missing_detections(run: Mapping[str, Any]) -> list[Path]:
    """Return the detections files of a run that do not exist."""
    return [file for file in detection_files(run) if not file.is_file()]


def _read_json(file: Path, advice: str) -> Any:
    if not file.is_file():
        raise MissingFileError(f"{file}: no such file; {advice}")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not valid JSON ({error})") from None


def _checked_results(file: Path, results: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the meta and the rows of results.json."""
    try:
        meta, rows, variants = results["meta"], results["runs"], results["meta"]["variants"]
    except (KeyError, TypeError):
        meta = rows = variants = None
    are_rows = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if not (are_rows and variants and isinstance(variants, dict)):
        raise InputError(f"{file} is not from a comparison: it needs meta with variants, and runs")
    if meta.get("baseline") not in variants:
        raise InputError(f"{file}: the baseline {meta.get('baseline')} is not one of the variants")
    for number, row in enumerate(rows):
        absent = [key for key in ("variant", "seed", "status") if key not in row]
        if absent:
            raise InputError(f"{file}: run {number} has no {', '.join(absent)}")
        if row["variant"] not in variants:
            raise InputError(
                f"{file}: run {number} has the variant {row['variant']}, which is not in meta"
            )
    return meta, rows


def _check_shared(first: Stored, other: Stored) -> None:
    """Raise InputError if two comparisons differ in more than losses and seeds."""
    if first.meta.get("hash") != other.meta.get("hash"):
        plans = [_plan(part) for part in (first, other)]
        lines = [
            line
            for key in _SHARED
            for line in differences(first.meta.get(key), other.meta.get(key), key)
        ]
        lines += differences(*plans) if all(plans) else []
        what = describe(list(dict.fromkeys(lines))) if lines else "their hashes differ"
        raise InputError(
            f"{other.folder} and {first.folder} have different configs: {what}; "
            "only comparisons that differ in losses and seeds can be merged"
        )
    if first.truth != other.truth:
        parts = [key for key in first.truth if first.truth[key] != other.truth.get(key)]
        raise InputError(
            f"{other.truth_file} differs from {first.truth_file} in "
            f"{', '.join(parts) or 'its keys'}; "
            "only comparisons on the same images and boxes can be merged"
        )


def _plan(part: Stored) -> dict[str, Any]:
    """Return the config in plan.json, or an empty dict without that file."""
    file = part.folder / PLAN_FILE
    return _read_json(file, "").get("config", {}) if file.is_file() else {}


def _merged_variants(stored: Sequence[Stored]) -> dict[str, Any]:
    variants: dict[str, Any] = {}
    owners: dict[str, Path] = {}
    for part in stored:
        for label, variant in part.meta["variants"].items():
            known = variants.setdefault(label, variant)
            owner = owners.setdefault(label, part.folder)
            lines = differences(known.get("changes"), variant.get("changes"))
            if lines:
                raise InputError(
                    f"{label} differs between {owner} and {part.folder} ({describe(lines)}); "
                    "a label must have the same configuration in all merged comparisons"
                )
    return variants


def _merged_runs(stored: Sequence[Stored]) -> list[dict[str, Any]]:
    """Return each run once; finished runs and runs whose detections exist take precedence."""
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    places: dict[tuple[str, int], Path] = {}
    for part in stored:
        for run in part.runs:
            key = run["variant"], run["seed"]
            known = runs.get(key)
            if known is not None and known["status"] == run["status"] == "done":
                if not _same_results(known, run):
                    raise InputError(
                        f"{run['variant']} seed {run['seed']} has different results in "
                        f"{places[key]} and {part.folder}; leave out one of them"
                    )
                if missing_detections(known) and not missing_detections(run):
                    runs[key], places[key] = run, part.folder
            elif known is None or run["status"] == "done":
                runs[key], places[key] = run, part.folder
    return list(runs.values())


def _same_results(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(first.get(key) == second.get(key) for key in ("metrics", "initial_weights"))


def _row_of_file(label: str, seed: int, file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise MissingFileError(f"{file}: no such file; give a COCO result json")
    return {
        "variant": label,
        "seed": seed,
        "status": "done",
        "metrics": {},
        "directory": str(file.parent),
        "detections": [file.name],
    }
