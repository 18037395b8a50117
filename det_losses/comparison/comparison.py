"""A whole comparison: select variants, check, plan, train, report."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config

from det_losses.comparison.announcement import announce, settings_table
from det_losses.comparison.budget import Budget
from det_losses.comparison.foreign import starting_config
from det_losses.comparison.interim import InterimReport
from det_losses.comparison.looks import LOOK_SEEDS, scheduled, until_decided
from det_losses.comparison.plan import Plan
from det_losses.comparison.prepare import Prepared, prepare
from det_losses.comparison.process import Executor, LocalExecutor
from det_losses.comparison.ray_executor import RayExecutor
from det_losses.comparison.runner import LOG_FILE, PlanRunner, locked
from det_losses.comparison.screening import RISK, screen, short_trainer
from det_losses.comparison.variants import Variant
from det_losses.comparison.weight_matching import match_variants
from det_losses.engine.config import check_tensorboard
from det_losses.engine.experiment import load_experiment
from det_losses.engine.signals import signals_as_interrupt
from det_losses.errors import InputError, UserError, counted, printable
from det_losses.options.comparison import DEFAULTS, ComparisonOptions
from det_losses.report import Study, summary, write_report
from det_losses.report.formats import listed


def run(options: ComparisonOptions, command: str) -> list[dict[str, Any]]:
    """Train, print progress and the answer, and write results and report.

    Args:
        options: the options.
        command: the command that does the same, for the report.

    Returns:
        The rows of results.json; none of a dry run.

    Raises:
        UserError: an option, the config or the data cannot be used.
        KeyboardInterrupt: running trainings were stopped and results were written.
    """
    for option in options.cfg_options:
        if option.startswith("randomness.seed="):
            raise InputError(f"--cfg-options {option}: a comparison takes its seeds from --seeds")
    if options.tensorboard:
        check_tensorboard()
    with signals_as_interrupt():
        return compare(load_experiment(options, starting_config(options)), options, command)


def compare(cfg: Config, options: ComparisonOptions, command: str = "") -> list[dict[str, Any]]:
    """Train a config with several losses, print progress, and write results and report.

    Everything that can fail without training is checked first, before anything is written.

    Args:
        cfg: the config that all runs share, to which the options are applied.
        options: the options; an existing comparison in their ``root`` is resumed.
        command: the command that does the same, for the report.

    Returns:
        The rows of results.json; none of a dry run.

    Raises:
        UserError: an option, the config or the data cannot be used.
        KeyboardInterrupt: running trainings were stopped and results were written.
    """
    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(contextlib.closing(_executor(options)))
        if isinstance(executor, RayExecutor) and options.jobs is None:
            options = replace(options, jobs=executor.places)
        prepared = prepare(cfg, options, command)
        lock = 0 if options.dry_run else stack.enter_context(locked(options.root))
        plan = prepared.plan(prepared.variants())
        prepared = prepared.with_jobs(plan)
        announce(prepared, plan)
        if options.dry_run:
            return []
        report = stack.enter_context(InterimReport(options.root))
        variants = _matched(prepared)
        budget = _budget(prepared)
        variants, notes = _screened(prepared, variants, lock, budget, executor)
        start = partial(_runner, prepared, lock, budget, report, executor, notes)
        rows = _train(prepared, prepared.plan(variants), start, budget)
        _report(options.root, rows)
    return rows


def _matched(prepared: Prepared) -> list[Variant]:
    """Return the variants, with matched loss weights if that is an option."""
    if not prepared.options.match_weights:
        return prepared.variants()
    selection = prepared.selection
    variants = selection.swept(match_variants(prepared.cfg, selection, prepared.options.root))
    print(f"\nMatched loss weights\n{settings_table(variants)}\n", flush=True)
    return variants


def _budget(prepared: Prepared) -> Budget | None:
    options = prepared.options
    if options.budget is None:
        return None
    return Budget(options.budget, _seconds(prepared) or 0.0, options.jobs)


def _seconds(prepared: Prepared) -> float | None:
    """Return the expected time of a run; None if another program trains and none has finished."""
    expected = prepared.run_time()
    return expected and expected.seconds


def _executor(options: ComparisonOptions) -> Executor:
    """Return what runs the ``train`` commands of this comparison.

    Raises:
        InputError: an option of Ray is given without it, or Ray cannot be used.
    """
    if options.executor == "ray":
        return RayExecutor(options.address, options.cpus_per_run, options.gpus_per_run)
    for name in ("address", "cpus_per_run", "gpus_per_run"):
        if getattr(options, name) != DEFAULTS[name]:
            raise InputError(f"--{name.replace('_', '-')} requires --executor ray")
    return LocalExecutor()


def _screened(
    prepared: Prepared,
    variants: list[Variant],
    lock: int,
    budget: Budget | None,
    executor: Executor,
) -> tuple[list[Variant], list[str]]:
    """Return the variants that are left after screening, if that is an option, and its notes."""
    options = prepared.options
    if not options.screen:
        return variants, []
    seed = prepared.seeds[0]
    train = short_trainer(prepared.facts, seed, lock, options.jobs, budget, executor)
    baseline = prepared.selection.baseline
    variants, dropped = screen(
        prepared.cfg, variants, baseline, options.root, options.metric, train
    )
    notes = [*map(str, dropped), RISK] if dropped else []
    print("\n".join(notes) or "Screening dropped no variant")
    return variants, notes


def _runner(
    prepared: Prepared,
    lock: int,
    budget: Budget | None,
    report: InterimReport,
    executor: Executor,
    notes: Sequence[str],
    plan: Plan,
) -> PlanRunner:
    """Return what trains the runs of a plan."""
    options, facts = prepared.options, prepared.facts
    runner = PlanRunner(
        prepared.cfg,
        plan,
        options.root,
        lock,
        facts,
        options.jobs,
        budget,
        report,
        options.tensorboard,
        executor,
        prepared.data,
    )
    for note in (*notes, *facts.get("data_notes", {}).get("both", [])):
        runner.results.note(note)
    runner.run_seconds = _seconds(prepared) if runner.todo else None
    return runner


def _train(
    prepared: Prepared,
    plan: Plan,
    start: Callable[[Plan], PlanRunner],
    budget: Budget | None,
) -> list[dict[str, Any]]:
    """Train the runs of a plan, or from look to look; return the rows of results.json."""
    options = prepared.options
    if prepared.looks:
        seeds = options.seeds or LOOK_SEEDS
        return _until_decided(start, plan, options.root, seeds, prepared.facts, budget)
    if budget and prepared.run_time() is None:  # the first seed shows what a run takes
        start(replace(plan, seeds=list(options.seeds or [0])[:1])).execute()
    if budget:
        fit = budget.seeds(partial(plan.unfinished, options.root), options.seeds)
        plan = replace(plan, seeds=fit)
    runner = start(plan)
    if budget or options.screen:  # which chose the seeds or the variants
        print(runner.forecast(), flush=True)
    return runner.execute()


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
            failure = f"no report: {error}; fix this and run python -m det_losses report {root}"
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
