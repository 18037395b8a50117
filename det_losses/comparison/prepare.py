"""From options to a comparison that is checked before anything is written."""

import contextlib
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from mmengine.config import Config

from det_losses.comparison.foreign import RunData, check_runs
from det_losses.comparison.fork import Fork, check_fork, fork_of
from det_losses.comparison.jobs import WORTH, Throughput, fastest, measure_jobs
from det_losses.comparison.looks import LOOK_SEEDS, default_seeds, scheduled
from det_losses.comparison.plan import Plan, stored_results
from det_losses.comparison.preflight import check_losses, check_runner, describe, evaluator
from det_losses.comparison.screening import shorten
from det_losses.comparison.trainer import is_foreign
from det_losses.comparison.variants import Selection, Variant, select
from det_losses.comparison.weight_matching import MATCHED_FILE
from det_losses.config_diff import plain
from det_losses.cost import cost
from det_losses.engine.build import build_datasets
from det_losses.engine.config import select_fold, use_validation
from det_losses.engine.fitted_anchors import use_fitted_anchors
from det_losses.engine.pretrained import pin_weights
from det_losses.engine.run_time import RunTime, measure_run
from det_losses.engine.schedule import limit_warm_up, set_length
from det_losses.engine.settings import check_settings
from det_losses.errors import InputError, UserError, did_you_mean
from det_losses.evaluation.metrics import METRICS
from det_losses.files import PLAN_FILE, RESULTS_FILE, TRUTH_FILE, is_damaged
from det_losses.losses.core.base import Loss
from det_losses.losses.core.build import build_loss
from det_losses.options.comparison import ComparisonOptions


@dataclass(frozen=True)
class Prepared:
    """A comparison that is checked, and has written nothing yet.

    Attributes:
        given: the config as it was given.
        cfg: the config that all runs share, with its length in epochs and its weights.
        options: the options.
        selection: the variants before matching and screening.
        seeds: the seeds of the plan; a budget or looks may choose among them.
        looks: the numbers of seeds at which the results are looked at; None: all seeds are trained.
        fork: the part of the training that all variants share, if any.
        facts: metadata of the results.
        run_time: what one run takes, measured at its first call; None if another program trains it
            and none has finished yet.
        data: the data as files, for another program; None: this package's engine trains.
        throughputs: what the numbers of parallel runs give that were tried.
    """

    given: Config
    cfg: Config
    options: ComparisonOptions
    selection: Selection
    seeds: Sequence[int]
    looks: Sequence[int] | None
    fork: Fork | None
    facts: dict[str, Any]
    run_time: Callable[[], RunTime | None]
    data: RunData | None = None
    throughputs: Sequence[Throughput] = ()

    def with_jobs(self, plan: Plan) -> "Prepared":
        """Return this comparison with a number of parallel runs: the fastest, if none is given.

        It is 1 without a measurement if all runs take no longer than ``WORTH``.
        """
        options, found, factor = self.options, [], 1.0
        jobs = options.jobs or 1
        if self.data:  # nothing is known about what its runs need
            return replace(
                self, options=replace(options, jobs=jobs), facts={**self.facts, "jobs": jobs}
            )
        todo = sum(plan.unfinished(options.root, seed) for seed in plan.seeds)
        if options.jobs is None and todo > 1 and todo * self.run_time().seconds > WORTH:
            print("Timing parallel runs", flush=True)
            found = measure_jobs(self.variants()[0].apply(self.cfg), math.ceil(todo))
        if found:
            best = fastest(found, math.ceil(todo))
            jobs = best.jobs
            if self.run_time().evaluations:  # it was timed alone, not taken from finished runs
                factor = found[0].steps * best.jobs / best.steps
        return replace(
            self,
            options=replace(options, jobs=jobs),
            facts={**self.facts, "jobs": jobs},
            run_time=lambda: self.run_time().slowed(factor),
            throughputs=found,
        )

    def variants(self) -> list[Variant]:
        """Return the variants with their multiples of the loss weight."""
        return self.selection.swept(self.selection.variants)

    def plan(self, variants: Sequence[Variant]) -> Plan:
        """Return the plan of these variants."""
        return Plan.of(self.cfg, self.selection.components, variants, self.seeds, self.fork)


def prepare(cfg: Config, options: ComparisonOptions, command: str) -> Prepared:
    """Select the variants, and check everything that can fail without training."""
    root = options.root
    selection = select(
        cfg,
        options.losses,
        options.component,
        cross=options.cross,
        config_variants=options.variant,
        baseline=options.baseline,
        multiples=options.weights,
        matched=options.match_weights is not None,
    )
    if options.fit_anchors:
        cfg = with_fitted_anchors(cfg, root)
    given, cfg = cfg, with_epochs(cfg)
    cfg, selection = with_weights(cfg, selection)
    seeds = options.seeds or default_seeds(cfg)
    fork = None if options.fork_at is None else fork_of(cfg, options.fork_at, selection.baseline)
    _say_damaged(root)
    check(cfg, selection, root, seeds, options.screen, fork)
    looks = _looks(options, selection)
    facts = _facts(cfg, options, selection, command)
    variants = selection.swept(selection.variants)
    run_time = cache(partial(_run_time, cfg, variants[0], root, options.jobs or 1))
    data = None
    if is_foreign(cfg):
        data = RunData.of(cfg, root)
        check_runs(cfg, Plan.of(cfg, selection.components, variants, seeds), data, root)
    return Prepared(given, cfg, options, selection, seeds, looks, fork, facts, run_time, data)


def _looks(options: ComparisonOptions, selection: Selection) -> Sequence[int] | None:
    if not options.until_decided:
        return None
    looks = scheduled(options.seeds or LOOK_SEEDS)
    if len(selection.swept(selection.variants)) < 2:
        raise InputError("--until-decided requires at least two variants")
    return looks


def _facts(
    cfg: Config, options: ComparisonOptions, selection: Selection, command: str
) -> dict[str, Any]:
    """Return the metadata of the results."""
    facts = {
        "command": command,
        "config": options.config,
        "baseline": options.baseline or _baseline(selection, options.root),
        "metric": options.metric,
        "resamples": options.resamples,
        "within": options.within / 100,
        **describe(cfg),
        "budget": options.budget,
    }
    check_metric(options.metric, facts["classes"])
    facts["costs"] = _costs(selection.variants)
    return {**facts, **_chosen_later(options.metric, options.root)}


def _costs(variants: Sequence[Variant]) -> dict[str, dict[str, float]]:
    """Return the cost of each variant's box loss, if it changes one that can be measured."""
    found = {}
    for variant in variants:
        config = variant.changes.get("model.loss_bbox")
        if not isinstance(config, Mapping):
            continue
        with contextlib.suppress(UserError, TypeError):
            loss = build_loss({**config, "reduction": "mean"})
            if isinstance(loss, Loss) and loss.kind == "box":
                found[variant.label] = asdict(cost(loss))
    return found


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
    foreign = is_foreign(cfg)
    if not foreign:
        tested = copy.deepcopy(cfg)
        use_validation(tested)  # a test_dataloader may have only what differs
        check_settings(tested)
    evaluator(cfg)
    swept = selection.swept(selection.variants)
    plan = Plan.of(cfg, selection.components, swept, seeds, fork)
    stored = plan.known(root)
    if stored:  # without the variants, whose weights may still be matched
        replace(plan, variants=[]).added_to(stored, root)
    if foreign:
        return
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
    if is_foreign(cfg) or "steps" not in (cfg.get("train_cfg") or {}):
        return cfg
    own, one_run = copy.deepcopy(cfg), copy.deepcopy(cfg)
    select_fold(one_run, 0)
    images = len(build_datasets(one_run)["train_dataloader"])
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
    if is_foreign(cfg):
        return cfg, selection
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


def _run_time(cfg: Config, variant: Variant, root: Path, jobs: int) -> RunTime | None:
    """Return what a run takes: as the finished ones of the directory took, or else measured.

    Another program cannot be measured: None.
    """
    stored = Plan.load(root)
    known = stored.seconds_per_run(root) if stored else None
    if known:
        return RunTime(0.0, known, 0.0, 0, stored.bytes_per_run(root))
    if is_foreign(cfg):
        return None
    print("Timing a few steps", flush=True)
    return measure_run(variant.apply(cfg), jobs)
