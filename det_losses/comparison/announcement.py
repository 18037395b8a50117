"""What is printed before a comparison trains: its runs, their data and time, its variants."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from det_losses.comparison.jobs import Throughput
from det_losses.comparison.looks import likely_to_find
from det_losses.comparison.plan import Plan
from det_losses.comparison.prepare import Prepared
from det_losses.comparison.variants import Variant
from det_losses.data.folds import classes_in_one_fold
from det_losses.engine.outline import aligned, device_text, disk_text, outline, time_text
from det_losses.engine.run import is_finished
from det_losses.engine.run_time import RunTime
from det_losses.errors import counted, examples, printable
from det_losses.losses.core.text import loss_text
from det_losses.report.formats import OF_TRAINER, listed
from det_losses.report.markdown import table


def announce(prepared: Prepared, plan: Plan) -> None:
    """Print what will be trained, on what, how long it takes, and what it is likely to find."""
    options, facts, looks = prepared.options, prepared.facts, prepared.looks
    root, jobs = options.root, options.jobs
    for note in itertools.chain(*facts.get("data_notes", {}).values()):
        print(f"data: {printable(note)}")
    todo = sum(plan.unfinished(root, seed) for seed in plan.seeds)
    expected = prepared.run_time() if todo else None
    images = _images(facts)
    if prepared.data:
        classes = f"{len(facts['classes'])}: {examples(facts['classes'], 8)}"
        rows = {"images": images, "classes": classes, "trained by": plan.detector}
    else:
        rows = outline(prepared.given, facts["epoch_samples"], facts["classes"], images)
    rows["runs"] = _runs(plan, root, jobs, looks, options.budget)
    if prepared.throughputs:
        rows["jobs"] = _jobs(jobs, prepared.throughputs)
    if not prepared.data:
        rows["device"] = device_text()
    if expected:
        rows["time"] = _time(expected, todo, jobs)
        rows["disk"] = disk_text(expected.disk * math.ceil(todo), root)
        likely = likely_to_find(
            root,
            facts["images"]["val"],
            len(plan.variants),
            looks[-1] if looks else len(plan.seeds),
            looks[-1] if looks else None,
            options.metric,
        )
        if likely:
            rows["finds"] = likely
    elif todo:
        rows["time"] = "not known before the first run has ended"
    print(f"\n{printable(aligned('Plan', rows))}")
    if expected and expected.note:
        print(expected.note)
    weights = " (before --match-weights)" if options.match_weights else ""
    print(f"\nVariants{weights}\n{settings_table(plan.variants)}\n", flush=True)


def _runs(
    plan: Plan, root: Path, jobs: int, looks: Sequence[int] | None, seconds: float | None
) -> str:
    """Return which runs the comparison has, and how many of them are finished."""
    losses, runs = len(plan.variants), plan.runs(root)
    parallel = f", {jobs} in parallel" if jobs > 1 else ""
    if looks:
        text = f"{losses} variants, looks at {listed([str(look) for look in looks])} seeds"
        return f"{text}{parallel}"
    if seconds is not None:
        return f"{losses} variants, as many seeds as fit in {time_text(seconds)}{parallel}"
    seeds = ", ".join(map(str, plan.seeds))
    variants, noun = counted(losses, "variant"), "seed" if len(plan.seeds) == 1 else "seeds"
    text = f"{len(runs)}: {variants} with {noun} {seeds}{parallel}"
    if finished := sum(is_finished(run.work_dir) for run in runs):
        text += "; all of them are finished" if finished == len(runs) else f"; {finished} finished"
    return text


def _jobs(jobs: int, found: Sequence[Throughput]) -> str:
    """Return how many runs train at the same time, and why."""
    timed = ", ".join(f"{each.steps:.3g} with {each.jobs}" for each in found)
    return f"{jobs}, which is fastest (training steps per second of all jobs: {timed})"


def _time(expected: RunTime, todo: float, jobs: int) -> str:
    """Return the time of a run and of all; ``todo`` counts the unfinished ones."""
    total = math.ceil(todo / jobs) * expected.seconds
    text = f"about {time_text(expected.seconds)} a run, {time_text(total)} in all"
    if not expected.evaluations:
        return f"{text} (as the finished runs took)"
    return f"{text} (timed; evaluations take {time_text(expected.evaluation)} of a run)"


def _images(facts: Mapping[str, Any]) -> str:
    """Return the numbers of images, and with folds what is trained on and evaluated."""
    images, folds = facts["images"], facts.get("folds")
    if not folds:
        return f"{images['train']} training and {images['val']} validation images"
    together = f"; images with the same {folds['key']} stay in one fold" if folds["key"] else ""
    untrained = classes_in_one_fold(facts["ground_truth"])
    alone = f" (only in one fold, so no model learns it: {listed(untrained)})" if untrained else ""
    return (
        f"{images['val']} images in {folds['count']} folds: seed s trains on all but fold "
        f"s mod {folds['count']} and is evaluated on that one{together}{alone}"
    )


def settings_table(variants: Sequence[Variant]) -> str:
    """Return a table of the changes of each variant and the source of its settings."""
    lines = [
        [
            variant.label,
            key.removeprefix("model."),
            *_setting(value, variant.weight.get("how") != OF_TRAINER),
            variant.source,
        ]
        for variant in variants
        for key, value in (variant.changes or {"-": None}).items()
    ]
    return table(["variant", "changes", "loss_weight", "loss and parameters", "source"], lines)


def _setting(value: Any, with_default: bool) -> list[str]:
    if not isinstance(value, dict) or "type" not in value:
        return ["", "" if value is None else str(value)]
    rest = {key: inner for key, inner in value.items() if key != "loss_weight"}
    weight = (
        f"{value.get('loss_weight', 1.0):.4g}" if with_default or "loss_weight" in value else ""
    )
    return [weight, loss_text(rest)]
