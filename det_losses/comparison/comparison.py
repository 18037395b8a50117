"""A whole comparison: select variants, check, plan, train, report."""

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from mmengine.config import Config

from det_losses.comparison.budget import Budget
from det_losses.comparison.fork import Fork, check_fork, fork_of
from det_losses.comparison.interim import InterimReport
from det_losses.comparison.looks import (
    LOOK_SEEDS,
    default_seeds,
    likely_to_find,
    scheduled,
    until_decided,
)
from det_losses.comparison.plan import Plan, stored_results
from det_losses.comparison.preflight import (
    check_losses,
    check_runner,
    describe,
    evaluator,
)
from det_losses.comparison.runner import LOG_FILE, PlanRunner, locked
from det_losses.comparison.screening import RISK, screen, short_trainer, shorten
from det_losses.comparison.variants import Selection, Variant, select
from det_losses.comparison.weight_matching import MATCHED_FILE, match_variants
from det_losses.config_diff import plain
from det_losses.data.folds import classes_in_one_fold
from det_losses.engine.config import select_fold
from det_losses.engine.fitted_anchors import use_fitted_anchors
from det_losses.engine.outline import aligned, device_text, disk_text, outline, time_text
from det_losses.engine.pretrained import pin_weights
from det_losses.engine.run import is_finished
from det_losses.engine.run_time import RunTime, measure_run
from det_losses.engine.schedule import limit_warm_up, set_length
from det_losses.engine.settings import check_settings
from det_losses.errors import InputError, UserError, counted, did_you_mean, printable
from det_losses.evaluation.metrics import METRICS
from det_losses.files import PLAN_FILE, RESULTS_FILE, TRUTH_FILE, is_damaged
from det_losses.losses.core.text import loss_text
from det_losses.registry import DATASETS
from det_losses.report import Study, summary, write_report
from det_losses.report.formats import listed
from det_losses.report.markdown import table


def compare(
    cfg: Config,
    root: Path,
    losses: Sequence[str] = (),
    *,
    component: str = "loss_bbox",
    cross: Sequence[str] = (),
    config_variants: Sequence[str] = (),
    baseline: str | None = None,
    metric: str = "AP",
    match: bool = False,
    multiples: Sequence[float] = (),
    seeds: Sequence[int] | None = None,
    jobs: int = 1,
    seconds: float | None = None,
    until: bool = False,
    within: float = 0.01,
    screening: bool = False,
    fork_at: float | None = None,
    resamples: int = 1000,
    fit_anchors: bool = False,
    tensorboard: bool = False,
    dry_run: bool = False,
    facts: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Train a config with several losses, print progress, and write results and report.

    Everything that can fail without training is checked first, before anything is written.

    Args:
        cfg: the config that all runs share.
        root: the directory of the comparison; an existing comparison is resumed.
        losses: losses as text, for ``component``.
        component: a slot of the detector.
        cross: another slot and its losses; each loss is combined with each of these.
        config_variants: variants given by config keys, ``"name:key=value,key=value"``.
        baseline: label of the variant that all others are compared with. None: the first variant;
            if all variants are new to ``root``, the stored baseline.
        metric: the primary metric.
        match: whether loss weights are set so that gradient norms match the baseline's.
        multiples: factors by which each loss weight is multiplied.
        seeds: seeds of the runs; None: 0, 1 and 2, or one for each fold; with a budget as many as
            fit; with ``until`` as many of 0 to 7 as are needed.
        jobs: number of parallel runs.
        seconds: the time budget; None: unlimited.
        until: whether to add seeds for the candidates for the best variant until it is decided.
        within: a difference that does not matter, in 0..1.
        screening: whether to drop the worse half of the variants after a short training.
        fork_at: the fraction of the training, in 0..1, that only the baseline trains; all other
            variants continue from there. None: every variant trains from scratch.
        resamples: number of resamples of the validation images, for the intervals.
        fit_anchors: whether anchors are fitted to the training data, if many boxes have none.
        tensorboard: whether each run writes its scalars for TensorBoard too.
        dry_run: whether to print the plan only; nothing is trained or written.
        facts: further entries of the results' metadata (``command``, ``config``).

    Returns:
        The rows of results.json; none of a dry run.

    Raises:
        UserError: an option, the config or the data cannot be used.
        KeyboardInterrupt: running trainings were stopped and results were written.
    """
    selection = select(
        cfg,
        losses,
        component,
        cross=cross,
        config_variants=config_variants,
        baseline=baseline,
        multiples=multiples,
        matched=match,
    )
    if fit_anchors:
        cfg = with_fitted_anchors(cfg, root)
    given, cfg = cfg, with_epochs(cfg)
    cfg, selection = with_weights(cfg, selection)
    first = seeds or default_seeds(cfg)
    fork = None if fork_at is None else fork_of(cfg, fork_at, selection.baseline)
    _say_damaged(root)
    check(cfg, selection, root, first, screening, fork)
    if until:
        scheduled(seeds or LOOK_SEEDS)
        if len(selection.swept(selection.variants)) < 2:
            raise InputError("--until-decided requires at least two variants")
    baseline = baseline or _baseline(selection, root)
    settings = {"baseline": baseline, "metric": metric, "resamples": resamples, "within": within}
    facts = {**(facts or {}), **settings, **describe(cfg), "budget": seconds}
    check_metric(metric, facts["classes"])
    facts.update(_chosen_later(metric, root))
    variants = selection.swept(selection.variants)
    run_time = cache(partial(_run_time, cfg, variants[0], root, jobs))
    looks = scheduled(seeds or LOOK_SEEDS) if until else None
    with contextlib.ExitStack() as stack:
        lock = 0 if dry_run else stack.enter_context(locked(root))
        plan = Plan.of(cfg, selection.components, variants, first, fork)
        _announce(given, plan, root, facts, run_time, jobs, looks, match)
        if dry_run:
            return []
        report = stack.enter_context(InterimReport(root))
        if match:
            variants = selection.swept(match_variants(cfg, selection, root))
            print(f"\nMatched loss weights\n{settings_table(variants)}\n", flush=True)
        budget = None if seconds is None else Budget(seconds, run_time().seconds, jobs)
        notes: list[str] = []
        if screening:
            train = short_trainer(facts, first[0], lock, jobs, budget)
            variants, dropped = screen(cfg, variants, selection.baseline, root, metric, train)
            notes = [*map(str, dropped), RISK] if dropped else []
            print("\n".join(notes) or "Screening dropped no variant")
        plan = Plan.of(cfg, selection.components, variants, first, fork)

        def start(asked: Plan) -> PlanRunner:
            runner = PlanRunner(cfg, asked, root, lock, facts, jobs, budget, report, tensorboard)
            for note in (*notes, *facts.get("data_notes", {}).get("both", [])):
                runner.results.note(note)
            runner.run_seconds = run_time().seconds if runner.todo else None
            return runner

        if until:
            rows = _until_decided(start, plan, root, seeds or LOOK_SEEDS, facts, budget)
        else:
            if budget:
                fit = budget.seeds(partial(plan.unfinished, root), seeds)
                plan = replace(plan, seeds=fit)
            runner = start(plan)
            if budget or screening:  # which chose the seeds or the variants
                print(runner.forecast(), flush=True)
            rows = runner.execute()
        _report(root, rows)
    return rows


def _until_decided(
    start: Callable[[Plan], PlanRunner],
    plan: Plan,
    root: Path,
    seeds: Sequence[int],
    facts: Mapping[str, Any],
    budget: Budget | None,
) -> list[dict[str, Any]]:
    """Train from look to look; a budget too small for one seed is an error."""
    looks = scheduled(seeds)
    if budget:
        budget.seeds(partial(plan.unfinished, root), seeds[: looks[0]])
    labels = [variant.label for variant in plan.variants]
    at = listed([str(look) for look in looks])
    if facts["baseline"] not in labels:  # that of the directory, in a comparison of others
        facts = {**facts, "baseline": labels[0]}
    print(f"Looks at {at} seeds, at most {counted(len(labels) * looks[-1], 'run')}")

    def start_some(own: Mapping[str, Sequence[int]]) -> PlanRunner:
        if plan.fork:  # which trains the first part for the others, whether it is still in or not
            every = [seed for own_seeds in own.values() for seed in own_seeds]
            own = {plan.fork.baseline: list(dict.fromkeys(every)), **own}
        chosen = [variant for variant in plan.variants if variant.label in own]
        used = [seed for seed in seeds if any(seed in own_seeds for own_seeds in own.values())]
        per_variant = {label: list(own_seeds) for label, own_seeds in own.items()}
        return start(replace(plan, variants=chosen, seeds=used, own_seeds=per_variant))

    return until_decided(start_some, root, labels, seeds, facts)


def check(
    cfg: Config,
    selection: Selection,
    root: Path,
    seeds: Sequence[int],
    screening: bool,
    fork: Fork | None = None,
) -> None:
    """Check everything that can fail without training.

    Raises:
        UserError: as the parts raise it.
    """
    if "loss_weights" in cfg:  # version 0.1 read this table
        raise InputError(
            "the config key `loss_weights` is no longer supported. Remove it and give each loss "
            "its weight, as in --losses 'GIoULoss(loss_weight=5)'"
        )
    check_settings(cfg)
    evaluator(cfg)
    swept = selection.swept(selection.variants)
    plan = Plan.of(cfg, selection.components, swept, seeds, fork)
    stored = plan.known(root)
    if stored:  # without the variants, whose weights may still be matched
        replace(plan, variants=[]).added_to(stored, root)
    if screening:
        shorten(cfg)
    check_losses(cfg, selection.variants)
    if fork:
        baseline = next(variant for variant in swept if variant.label == fork.baseline)
        check_fork(cfg, selection.variants, baseline)
        return
    by_config = [variant for variant in selection.variants if not variant.factors]
    for variant in by_config or selection.variants[:1]:
        check_runner(cfg, variant)


_SOURCES = {
    PLAN_FILE: f"{RESULTS_FILE} and this command",
    RESULTS_FILE: "the plan and the runs",
    TRUTH_FILE: "the validation data",
    MATCHED_FILE: "a new matching",
}


def _say_damaged(root: Path) -> None:
    for name, source in _SOURCES.items():
        if is_damaged(root / name):
            print(f"{root / name} is damaged; it is rebuilt from {source}")


def with_epochs(cfg: Config) -> Config:
    """Return the config with the number of epochs, if it has a number of steps.

    So all runs of a comparison have the same length, which is part of what they share.
    """
    if "steps" not in (cfg.get("train_cfg") or {}):
        return cfg
    own, one_run = copy.deepcopy(cfg), copy.deepcopy(cfg)
    select_fold(one_run, 0)
    images = len(DATASETS.build(one_run.train_dataloader.dataset))
    set_length(own, images)
    limit_warm_up(own, images)
    return own


def with_fitted_anchors(cfg: Config, root: Path) -> Config:
    """Return the config with anchors fitted to the training data, and print what was changed.

    A comparison that exists in ``root`` keeps its anchors.

    Raises:
        UserError: a setting, the detector or the data cannot be used.
    """
    own, stored = copy.deepcopy(cfg), Plan.load(root)
    print(use_fitted_anchors(own, stored and stored.config), flush=True)
    return own


def with_weights(cfg: Config, selection: Selection) -> tuple[Config, Selection]:
    """Return config and variants with the hash of the weights that their runs start from.

    Raises:
        MissingFileError: no such file, or named weights cannot be downloaded.
    """
    shared = copy.deepcopy(cfg)
    pin_weights(shared)
    variants = []
    for variant in selection.variants:
        keys = ("load_from", "model.weights")
        changes = {k: v for k, v in variant.changes.items() if k not in keys}
        if len(changes) < len(variant.changes):
            own = variant.apply(cfg)
            pin_weights(own)
            stored = plain(own)
            if stored.get("load_from"):  # of a model of another package
                changes["load_from"] = stored["load_from"]
            else:
                changes["model.weights"] = stored["model"].get("weights")
        variants.append(replace(variant, changes=changes))
    return shared, replace(selection, variants=variants)


def _baseline(selection: Selection, root: Path) -> str:
    """Return the baseline of a report: adding variants to a directory does not change it."""
    meta, _ = stored_results(root)
    if meta.get("variants", {}).keys() & {v.label for v in selection.swept(selection.variants)}:
        return selection.baseline
    return meta.get("baseline") or selection.baseline


def check_metric(metric: str, classes: Sequence[str]) -> None:
    """Raise InputError unless a metric is one of METRICS, or the AP of a class of the data."""
    known = [*METRICS, *(f"AP/{name}" for name in classes)]
    if metric not in known:
        hint = did_you_mean(metric, known, f"The metrics are {', '.join(METRICS)} and AP/<class>.")
        raise InputError(f"--metric {metric}: no such metric. {hint}")


def _chosen_later(metric: str, root: Path) -> dict[str, str]:
    """Return the ``planned_metric`` of a comparison whose results are known by another metric."""
    meta, rows = stored_results(root)
    planned = meta.get("planned_metric") or meta.get("metric")
    if not planned or planned == metric or not any(row["status"] == "done" for row in rows):
        return {}
    print(f"{metric} is chosen after the first runs, which were planned for {planned}: exploratory")
    return {"planned_metric": planned}


def _run_time(cfg: Config, variant: Variant, root: Path, jobs: int) -> RunTime:
    """Return what a run takes: as the finished ones of the directory took, or else measured."""
    stored = Plan.load(root)
    known = stored.seconds_per_run(root) if stored else None
    if known:
        return RunTime(0.0, known, 0.0, 0, stored.bytes_per_run(root))
    print("Timing a few steps", flush=True)
    return measure_run(variant.apply(cfg), jobs)


def _announce(
    cfg: Config,
    plan: Plan,
    root: Path,
    facts: Mapping[str, Any],
    run_time: Callable[[], RunTime],
    jobs: int,
    looks: Sequence[int] | None,
    match: bool,
) -> None:
    """Print what will be trained, on what, how long it takes, and what it is likely to find."""
    for note in itertools.chain(*facts.get("data_notes", {}).values()):
        print(f"data: {printable(note)}")
    todo = sum(plan.unfinished(root, seed) for seed in plan.seeds)
    expected = run_time() if todo else None
    rows = outline(cfg, facts["epoch_samples"], facts["classes"], _images(facts))
    rows["runs"] = _runs(plan, root, jobs, looks, facts["budget"])
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
        )
        if likely:
            rows["finds"] = likely
    print(f"\n{printable(aligned('Plan', rows))}")
    if expected and expected.note:
        print(expected.note)
    weights = " (before --match-weights)" if match else ""
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
    variants = f"{losses} variant{'s' * (losses != 1)}"
    text = f"{len(runs)}: {variants} with seed{'s' * (len(plan.seeds) != 1)} {seeds}{parallel}"
    if finished := sum(is_finished(run.work_dir) for run in runs):
        text += "; all of them are finished" if finished == len(runs) else f"; {finished} finished"
    return text


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
        [variant.label, key.removeprefix("model."), *_setting(value), variant.source]
        for variant in variants
        for key, value in (variant.changes or {"-": None}).items()
    ]
    return table(["variant", "changes", "loss_weight", "loss and parameters", "source"], lines)


def _setting(value: Any) -> list[str]:
    if not isinstance(value, dict) or "type" not in value:
        return ["", "" if value is None else str(value)]
    rest = {key: inner for key, inner in value.items() if key != "loss_weight"}
    return [f"{value.get('loss_weight', 1.0):.4g}", loss_text(rest)]


def _report(root: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the report; print the result, the failed runs and the paths of the files.

    Raises:
        InputError: the report cannot be written. The results are not affected.
    """
    file = failure = None
    if any(row["status"] == "done" for row in rows):
        try:
            study = Study.load([root])
            file = write_report(study, root)
            print(f"\n{summary(study)}\n")
        except (UserError, OSError) as error:  # the results themselves are safe
            failure = f"no report: {error}; fix this and run tools/report.py {root}"
    for row in rows:
        if row["status"] == "failed":
            print(printable(f"failed: {row['variant']} seed {row['seed']}: {_reason(row)}"))
            print(f"        log: {root / row['work_dir'] / LOG_FILE}")
    if failure:
        raise InputError(failure)
    if file:
        print(f"report: {file.absolute().as_uri()}")
        print(f"report.md, results.csv, differences.csv and results.json are in {root}")


def _reason(row: Mapping[str, Any]) -> str:
    """Return why a run failed, in a line: the signal that killed it, or the end of its log."""
    lines = (row["error"] or "unknown").splitlines()
    killed = lines[0].startswith("killed by")
    return (lines[0].partition(";")[0] if killed else lines[-1])[:300]
