"""What to be careful about in a report: few seeds, unfinished runs, missing files, merged parts."""

from collections import Counter
from typing import Any

from det_losses.report.formats import listed, points
from det_losses.report.merge import missing
from det_losses.report.study import Study
from det_losses.report.words import weak_baseline
from det_losses.statistics import caution

_TOLERANCE = 5e-4  # between a run's recorded AP and that of its detections


def cautions(study: Study) -> list[str]:
    """Return what to be careful about, most important first; empty where all is well."""
    found = caution(study.verdict()) if study.comparable else []
    found += filter(None, [weak_baseline(study)])
    found += [*_unfinished(study), *_left_out(study), *_files(study), *_origins(study)]
    return found + list(study.meta.get("notes") or [])


def _unfinished(study: Study) -> list[str]:
    counts = Counter(run["status"] for run in study.runs if run["status"] != "done")
    if not counts:
        return []
    states = listed([f"{count} {status}" for status, count in counts.items()])
    done = len(study.runs) - counts.total()
    return [f"{done} of {len(study.runs)} runs are done ({states}): the numbers are of these."]


def _left_out(study: Study) -> list[str]:
    compared = study.compared
    out = [label for label in study.labels if study.done(label) and label not in compared]
    if not out or not study.comparable:
        return []
    return [
        "Not in the statistics, for want of a finished seed in common with every other variant: "
        f"{listed(out)}. Run the same seeds for all."
    ]


def _files(study: Study) -> list[str]:
    done = [run for run in study.runs if run["status"] == "done"]
    gone = [_name(run) for run in done if missing(run)]
    sentences = []
    if gone:
        sentences.append(
            f"Not in the statistics, for their detections are missing: {listed(gone)}."
        )
    compared = study.compared if study.comparable else []
    unlike = [
        text
        for run in done
        if run["variant"] in compared and not missing(run) and (text := _mismatch(study, run))
    ]
    if unlike:
        sentences.append(
            f"The statistics are of the detections, which give another AP than was recorded: "
            f"{listed(unlike)}."
        )
    bare = [_name(run) for run in done if study.origins and not study.history(run)]
    if bare:
        sentences.append(
            "Without training curves, for history.jsonl is missing or cannot be read: "
            f"{listed(bare)}."
        )
    return sentences


def _name(run: dict[str, Any]) -> str:
    return f"{run['variant']} seed {run['seed']}"


def _mismatch(study: Study, run: dict[str, Any]) -> str | None:
    recorded = (run.get("metrics") or {}).get("AP")
    if recorded is None:
        return None
    computed = study.full(run)["AP"]
    if abs(recorded - computed) <= _TOLERANCE:
        return None
    return f"{_name(run)} ({points(computed, 2)}, recorded {points(recorded, 2)})"


def _origins(study: Study) -> list[str]:
    if len(study.origins) < 2:
        return []
    folders = listed([str(part.folder) for part in study.origins])
    hardware = [part.meta.get("hardware") or {} for part in study.origins]
    machines = {str(each.get("gpus") or each.get("cpu")) for each in hardware}
    versions = {str(part.meta.get("versions")) for part in study.origins}
    unlike = [
        name for name, kinds in (("machines", machines), ("versions", versions)) if len(kinds) > 1
    ]
    apart = f" They were made with different {listed(unlike)}." if unlike else ""
    if len(machines) > 1:
        apart += " Times and memory are then of machines as much as of losses."
    return [f"Merged from {folders}.{apart}"]
