"""Train one config with several losses, and say which differences are real."""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config

from det_losses.cli.arguments import (
    add_config,
    add_own_data,
    add_training,
    load_experiment,
    new_parser,
)
from det_losses.cli.errors import interruptible, user_errors
from det_losses.compare import preflight
from det_losses.compare.budget import Budget, measure_run, parse_duration
from det_losses.compare.choice import Choice, matched
from det_losses.compare.comparison import Comparison
from det_losses.compare.lock import locked
from det_losses.compare.plan import Plan
from det_losses.compare.screening import FRACTIONS, RISK, screen, short_runs, shortened
from det_losses.compare.tables import weight_table
from det_losses.compare.variants import Variant
from det_losses.engine.signals import signals_as_interrupt
from det_losses.evaluation.metrics import METRICS
from det_losses.report import Study, summary, write_report

EXAMPLE = """  det-losses compare quickstart/retinanet_shapes \\
      --losses SmoothL1Loss GIoULoss 'EIoULoss(loss_weight=2)' --seeds 0 1 2
  det-losses compare small/faster_rcnn_lite0 --losses L1Loss GIoULoss \\
      --cross loss_cls CrossEntropyLoss FocalLoss --budget 8h
  det-losses compare quickstart/retinanet_shapes --losses L1Loss EIoULoss \\
      --match-weights gradient
  det-losses compare quickstart/retinanet_shapes \\
      --variant plain:loss_bbox=L1Loss slow:loss_bbox=L1Loss,optim_wrapper.optimizer.lr=1e-3

What a loss is not given, it gets from det_losses/models/published.py; the sources are printed.
The same command again trains what is missing; further losses or seeds are added. tools/report.py
rebuilds the report."""


def main(argv: list[str] | None = None) -> int:
    """Compare; 0 if all runs ended well, 1 if one failed, 130 if it was interrupted."""
    args = _parser().parse_args(argv)
    given = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", "det_losses", "compare", *given])
    with contextlib.ExitStack() as stack:
        stack.enter_context(signals_as_interrupt())
        with interruptible(), user_errors():
            cfg = load_experiment(args)
            choice = Choice.of(cfg, args)
            root = Path(args.work_dir or f"work_dirs/{Path(args.config).stem}_{choice.name}")
            _check(cfg, choice, args)
            facts = {"command": command, **_settings(args, choice)}
            facts |= preflight.describe(cfg, args.config)
            root.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(locked(root))
        try:
            return _compare(cfg, args, choice, facts, root, lock)
        except KeyboardInterrupt:
            print(f"interrupted; the same command continues, tools/report.py {root} reports so far")
            return 130


def _compare(
    cfg: Config,
    args: argparse.Namespace,
    choice: Choice,
    facts: dict[str, Any],
    root: Path,
    lock: int,
) -> int:
    with user_errors():
        variants = choice.variants
        if args.match_weights:
            variants = matched(cfg, choice, root)
        variants = choice.swept(variants)
        budget = _budget(cfg, args, variants)
        dropped = []
        if args.screen:
            seed = (args.seeds or [0])[0]
            train = short_runs(facts, seed, lock, args.jobs, budget)
            variants, dropped = screen(cfg, variants, choice.baseline, root, train)
        plan = Plan.of(cfg, choice.components, variants, args.seeds or [0])
        if budget:
            unfinished = partial(plan.unfinished, root)
            plan = replace(plan, seeds=budget.seeds(unfinished, args.seeds))
        comparison = Comparison(cfg, plan, root, lock, facts, args.jobs, budget)
    for each in dropped:
        comparison.note(str(each))
    if dropped:
        comparison.note(RISK)
    _announce(comparison, budget)
    comparison.execute()
    return _finish(comparison, root)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("compare", "Train with several losses; say what differs.", EXAMPLE)
    add_config(parser)
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--losses",
        nargs="+",
        default=[],
        metavar="LOSS",
        help="Name, or Name:key=value,key=value with parameters of its own (list_losses)",
    )
    what.add_argument(
        "--component", default="loss_bbox", help="which loss of the detector (default: loss_bbox)"
    )
    what.add_argument(
        "--cross",
        nargs="+",
        metavar="X",
        help="COMPONENT LOSS LOSS...: each of --losses with each loss of another component",
    )
    what.add_argument(
        "--variant",
        nargs="+",
        default=[],
        metavar="NAME:KEY=VALUE,...",
        help="a whole variant: config keys, or slots with a loss (loss_cls=FocalLoss)",
    )
    what.add_argument("--baseline", metavar="LABEL", help="default: the first one")
    what.add_argument(
        "--metric", choices=METRICS, default="AP", help="which one is tested (default: AP)"
    )
    weights = parser.add_argument_group("loss weights (default: the published ones)")
    weights.add_argument(
        "--match-weights",
        choices=("gradient",),
        help="set every loss_weight so that the box head gets gradients as large as the baseline's",
    )
    weights.add_argument(
        "--weights",
        nargs="+",
        type=_above_zero,
        default=[],
        metavar="X",
        help="each loss with these multiples of its weight",
    )
    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--seeds", nargs="+", type=int, help="default: 0; with --budget as many as fit"
    )
    runs.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="runs at the same time (default: 1)"
    )
    runs.add_argument(
        "--budget", type=_duration, metavar="TIME", help="plan for this time (2h, 90min), then stop"
    )
    runs.add_argument(
        "--screen", action="store_true", help="drop what is clearly behind after short trainings"
    )
    runs.add_argument(
        "--resamples",
        type=positive,
        default=1000,
        metavar="N",
        help="resamples of the validation images for the intervals (default: 1000)",
    )
    add_training(parser)
    add_own_data(parser, train=True)
    return parser


def positive(text: str) -> int:
    """Read a number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _above_zero(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return number


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _settings(args: argparse.Namespace, choice: Choice) -> dict[str, Any]:
    return {"baseline": choice.baseline, "metric": args.metric, "resamples": args.resamples}


def _check(cfg: Config, choice: Choice, args: argparse.Namespace) -> None:
    """Try everything that can fail without training."""
    Plan.of(cfg, choice.components, choice.swept(choice.variants), args.seeds or [0])
    if args.screen:
        shortened(cfg, FRACTIONS[0])
    preflight.check_losses(cfg, choice.variants)
    whole = [variant for variant in choice.variants if not variant.factors]
    for variant in whole or choice.variants[:1]:
        preflight.check_runner(cfg, variant)


def _budget(cfg: Config, args: argparse.Namespace, variants: Sequence[Variant]) -> Budget | None:
    """Return the budget, if one was asked for; it runs from now on."""
    if args.budget is None:
        return None
    print("Measuring how long a run takes", flush=True)
    return Budget(args.budget, measure_run(cfg, variants[0], args.jobs), args.jobs)


def _announce(comparison: Comparison, budget: Budget | None) -> None:
    meta = comparison.meta()
    images = meta["images"]
    runs = comparison.runs
    print(f"{images['train']} training and {images['val']} validation images, ", end="")
    print(f"{len(meta['classes'])} classes; {len(runs)} runs")
    if budget:
        print(comparison.forecast(budget))
    print(f"\n{', '.join(meta['components']) or 'variants'} of {meta['detector']}:")
    print(f"{weight_table(meta)}\n", flush=True)


def _finish(comparison: Comparison, root: Path) -> int:
    _, results = comparison.write()
    report = None
    if any(run["status"] == "done" for run in results):
        try:
            study = Study.load([root])
            report = write_report(study, root)
            print(f"\n{summary(study)}\n")
        except (ValueError, OSError) as error:  # the results themselves are safe
            print(f"no report: {error}; mend it and run tools/report.py {root}")
    failed = [run for run in results if run["status"] == "failed"]
    for run in failed:
        print(f"failed: {run['variant']} seed {run['seed']}: {run['error'].splitlines()[-1]}")
        print(f"        log: {root / run['work_dir'] / 'output.log'}")
    if report:
        print(f"report: {report.absolute().as_uri()}")
        print(f"report.md, results.csv, differences.csv and results.json are in {root}")
    return 1 if failed else 0
