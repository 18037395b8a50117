"""A comparison as it was stored, and several of them as one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from det_losses.config_diff import describe, differences
from det_losses.files import PLAN_FILE, RESULTS_FILE, TRUTH_FILE


@dataclass(frozen=True)
class Stored:
    """One comparison's directory as it was read.

    Attributes:
        folder: the directory.
        meta: what holds for all runs.
        runs: its rows, each with its own ``directory``, an absolute path.
        truth: the COCO json of exactly the evaluated images and classes.
        truth_file: where it was read from.
    """

    folder: Path
    meta: dict[str, Any]
    runs: list[dict[str, Any]]
    truth: dict[str, Any]
    truth_file: Path


def read_stored(folder: Path) -> Stored:
    """Read a comparison's directory.

    Raises:
        FileNotFoundError: results.json or ground_truth.json is missing.
        ValueError: one of them is no JSON, or not of a comparison.
    """
    file = folder / RESULTS_FILE
    results = read_json(file, "name the directory of a comparison")
    try:
        meta, rows, variants = results["meta"], results["runs"], results["meta"]["variants"]
    except (KeyError, TypeError):
        variants = rows = None
    listed = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if not (listed and variants and isinstance(variants, dict)):
        raise ValueError(f"{file} is not of a comparison: it needs meta with variants, and runs")
    if meta.get("baseline") not in variants:
        raise ValueError(f"{file}: the baseline {meta.get('baseline')} is none of the variants")
    for number, row in enumerate(rows):
        missing = [key for key in ("variant", "seed", "status") if key not in row]
        if missing:
            raise ValueError(f"{file}: run {number} has no {', '.join(missing)}")
        if row["variant"] not in variants:
            raise ValueError(f"{file}: run {number} is of {row['variant']}, which is no variant")
    runs = [
        {**row, "directory": str((folder / row.get("work_dir", ".")).resolve())} for row in rows
    ]
    truth_file = folder / TRUTH_FILE
    truth = read_json(truth_file, "compare again: the statistics need it")
    return Stored(folder, meta, runs, truth, truth_file)


def merge(stored: Sequence[Stored]) -> Stored:
    """Return several comparisons as one: all variants, all seeds, all notes.

    What is said once (baseline, metric, command) is the first one's; images are read from the
    first folder that is there.

    Raises:
        ValueError: they are not on one config or ground truth, name two variants alike, or did a
            run twice with different results.
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


def read_json(file: Path, advice: str) -> Any:
    """Read a JSON file; ``advice`` is what the error of a missing file ends with.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no JSON.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; {advice}")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no JSON ({error})") from None


def _check_shared(first: Stored, other: Stored) -> None:
    if first.meta.get("hash") != other.meta.get("hash"):
        plans = [_plan(part) for part in (first, other)]
        lines = [line for key in _SHARED for line in _differing(key, first, other)]
        lines += differences(*plans) if all(plans) else []
        what = describe(list(dict.fromkeys(lines))) if lines else "their hashes differ"
        raise ValueError(
            f"{other.folder} is not on the config of {first.folder}: {what}; "
            "merge comparisons whose runs differ in losses and seeds only"
        )
    if first.truth != other.truth:
        parts = [key for key in first.truth if first.truth[key] != other.truth.get(key)]
        raise ValueError(
            f"{other.truth_file} differs from {first.truth_file} in "
            f"{', '.join(parts) or 'its parts'}; merge comparisons on the same images and boxes"
        )


_SHARED = ("detector", "components", "config", "classes", "images")


def _differing(key: str, first: Stored, other: Stored) -> list[str]:
    return differences(first.meta.get(key), other.meta.get(key), key)


def _plan(part: Stored) -> dict[str, Any]:
    """Return the stored config, where a plan lies beside the results."""
    file = part.folder / PLAN_FILE
    return read_json(file, "").get("config", {}) if file.is_file() else {}


def _merged_variants(stored: Sequence[Stored]) -> dict[str, Any]:
    variants: dict[str, Any] = {}
    owners: dict[str, Path] = {}
    for part in stored:
        for label, variant in part.meta["variants"].items():
            known = variants.setdefault(label, variant)
            owner = owners.setdefault(label, part.folder)
            lines = differences(known.get("changes"), variant.get("changes"))
            if lines:
                raise ValueError(
                    f"{part.folder} has another {label} than {owner} ({describe(lines)}); "
                    "merge comparisons in which a label has one configuration"
                )
    return variants


def _merged_runs(stored: Sequence[Stored]) -> list[dict[str, Any]]:
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    places: dict[tuple[str, int], Path] = {}
    for part in stored:
        for run in part.runs:
            key = run["variant"], run["seed"]
            known = runs.get(key)
            if known is not None and known["status"] == run["status"] == "done":
                if not _same(known, run):
                    raise ValueError(
                        f"{run['variant']} seed {run['seed']} was done in {places[key]} and in "
                        f"{part.folder}, with different results; leave out one of them"
                    )
                if missing(known) and not missing(run):
                    runs[key], places[key] = run, part.folder
            elif known is None or run["status"] == "done":
                runs[key], places[key] = run, part.folder
    return list(runs.values())


def detection_files(run: Mapping[str, Any]) -> list[Path]:
    """Return the detections files of a run, the last evaluation's last."""
    return [Path(run["directory"], name) for name in run.get("detections") or ["detections.json"]]


def missing(run: Mapping[str, Any]) -> list[Path]:
    """Return those detections files of a run that are not there."""
    return [file for file in detection_files(run) if not file.is_file()]


def _same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(first.get(key) == second.get(key) for key in ("metrics", "initial_weights"))
