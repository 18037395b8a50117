"""Train one config with several losses, and report which differences are significant."""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from det_losses.cli.arguments import (
    RESAMPLES,
    SEED,
    Parser,
    add_config,
    add_dry_run,
    add_folds,
    add_own_data,
    add_training,
    load_experiment,
    new_parser,
    whole_number,
)
from det_losses.cli.errors import user_errors
from det_losses.errors import InputError
from det_losses.evaluation.metrics import METRICS

EXAMPLE = """  det-losses compare quickstart/retinanet_shapes \\
      --losses SmoothL1Loss GIoULoss "EIoULoss(loss_weight=2)" --seeds 0 1 2
  det-losses compare small/faster_rcnn_lite0 --losses L1Loss GIoULoss \\
      --cross loss_cls CrossEntropyLoss FocalLoss --budget 8h
  det-losses compare quickstart/retinanet_shapes --losses L1Loss GIoULoss EIoULoss \\
      --until-decided --within 1 --budget 8h
  det-losses compare small/retinanet_lite0 --losses L1Loss GIoULoss --data data.yaml
  det-losses compare small/retinanet_lite0 --losses L1Loss GIoULoss EIoULoss \\
      --train-ann FILE --train-images DIR --folds 5
  det-losses compare quickstart/retinanet_shapes --losses L1Loss EIoULoss \\
      --match-weights gradient
  det-losses compare quickstart/retinanet_shapes \\
      --variant plain:loss_bbox=L1Loss slow:loss_bbox=L1Loss,optim_wrapper.optimizer.lr=1e-3

A loss gets the published setting of its slot, as in a config. Parameters in parentheses take
precedence. Repeating the command resumes the comparison; more losses or seeds can be added to it.
tools/report.py rebuilds the report."""


def main(argv: list[str] | None = None) -> int:
    """Compare; exit status 0 if all runs succeeded, 1 if one failed, 130 if interrupted."""
    args = parser().parse_args(argv)
    root = work_dir(args)
    with user_errors():
        try:
            rows = run(args, sys.argv[1:] if argv is None else argv)
        except KeyboardInterrupt:
            if not root.is_dir():
                raise
            print("interrupted; run the same command again to resume")
            print(f"tools/report.py {root} writes a report of the finished runs")
            return 130
    return int(any(row["status"] == "failed" for row in rows))


def run(args: argparse.Namespace, argv: Sequence[str]) -> list[dict[str, Any]]:
    """Train, print progress and the answer, and write results and report.

    Args:
        args: the options.
        argv: the same as text, for the command in the report.

    Returns:
        The rows of results.json.

    Raises:
        UserError: an option, the config or the data cannot be used.
        KeyboardInterrupt: running trainings were stopped and results were written.
    """
    for option in args.cfg_options:
        if option.startswith("randomness.seed="):
            raise InputError(f"--cfg-options {option}: a comparison takes its seeds from --seeds")
    from det_losses.comparison.comparison import compare
    from det_losses.engine.config import check_tensorboard
    from det_losses.engine.signals import signals_as_interrupt

    if args.tensorboard:
        check_tensorboard()
    with signals_as_interrupt():
        return compare(
            load_experiment(args),
            work_dir(args),
            args.losses,
            component=args.component,
            cross=args.cross,
            config_variants=args.variant,
            baseline=args.baseline,
            metric=args.metric,
            match=args.match_weights is not None,
            multiples=args.weights,
            seeds=args.seeds,
            jobs=args.jobs,
            seconds=args.budget,
            until=args.until_decided,
            within=args.within / 100,
            screening=args.screen,
            fork_at=args.fork_at,
            resamples=args.resamples,
            fit_anchors=args.fit_anchors,
            tensorboard=args.tensorboard,
            dry_run=args.dry_run,
            facts={
                "command": shlex.join(["python", "-m", "det_losses", "compare", *argv]),
                "config": args.config,
            },
        )


def parser() -> Parser:
    """Return the parser of the tool's options."""
    parser = new_parser("compare", "Train with several losses and test which ones differ.", EXAMPLE)
    add_config(parser)
    _add_variants(parser.add_argument_group("variants"))
    _add_weights(parser.add_argument_group("loss weights (default: the published ones)"))
    _add_runs(parser.add_argument_group("runs"))
    add_training(parser)
    add_dry_run(parser)
    add_own_data(parser, train=True)
    add_folds(parser)
    return parser


def _add_variants(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--losses",
        nargs="+",
        default=[],
        metavar="LOSS",
        help="Name, or 'Name(key=value, ...)' to set parameters (see list_losses)",
    )
    group.add_argument(
        "--component", default="loss_bbox", help="slot of these losses (default: loss_bbox)"
    )
    group.add_argument(
        "--cross",
        nargs="+",
        default=[],
        metavar="X",
        help="COMPONENT LOSS LOSS...: combine each of --losses with each of these losses of "
        "another slot",
    )
    group.add_argument(
        "--variant",
        nargs="+",
        default=[],
        metavar="NAME:KEY=VALUE,...",
        help="a variant given by config keys, or by slots with a loss (loss_cls=FocalLoss)",
    )
    group.add_argument(
        "--baseline",
        metavar="LABEL",
        help="default: the first variant; if all are new to --work-dir, its baseline",
    )
    group.add_argument(
        "--metric",
        default="AP",
        metavar="METRIC",
        help=f"primary metric: {', '.join(METRICS)}, or AP/<class> (default: AP)",
    )


def _add_weights(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--match-weights",
        choices=("gradient",),
        help="set each loss_weight so that the gradient norms on the box outputs match the "
        "baseline's",
    )
    group.add_argument(
        "--weights",
        nargs="+",
        type=_above_zero,
        default=[],
        metavar="X",
        help="train each loss with its weight times each X",
    )


def _add_runs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--seeds",
        nargs="+",
        type=SEED,
        help="seeds (default: 0 1 2; with --folds, one for each fold; with --budget, as many as "
        "fit; with --until-decided, as many of 0 to 7 as are needed)",
    )
    group.add_argument(
        "--jobs",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="number of parallel runs (default: 1)",
    )
    group.add_argument(
        "--budget",
        type=parse_duration,
        metavar="TIME",
        help="train as many seeds as fit in this time (2h, 90min); runs are stopped at its end",
    )
    group.add_argument(
        "--until-decided",
        action="store_true",
        help="look at the results at 3, 5 and 8 seeds, with 95%% confidence over all looks; train "
        "further seeds only for the losses that may still be the best; stop when one is left, or "
        "choosing the leader costs at most --within, or --budget ends",
    )
    group.add_argument(
        "--within",
        type=_above_zero,
        default=1.0,
        metavar="POINTS",
        help="a difference that does not matter to you, in points of the metric (default: 1)",
    )
    group.add_argument(
        "--screen",
        action="store_true",
        help="train all for half of the epochs with one seed first, and compare the better half of "
        "them; the baseline always stays. The rank with one seed is noisy: the best loss can be "
        "dropped",
    )
    group.add_argument(
        "--fork-at",
        type=_fraction,
        metavar="F",
        help="train the first part of the epochs, such as 0.5, with the baseline only, and "
        "continue from there with each loss. This costs less but measures something else: what it "
        "changes to switch the loss late. Such differences are smaller than those of whole "
        "trainings (docs/noise.md)",
    )
    group.add_argument(
        "--resamples",
        type=RESAMPLES,
        default=1000,
        metavar="N",
        help="resamples of the validation images for the intervals (default: 1000)",
    )


def work_dir(args: argparse.Namespace) -> Path:
    """Return the directory of the comparison."""
    components = [args.component, *args.cross[:1]] if args.losses else ["variants"]
    default = f"work_dirs/{Path(args.config).stem}_{'_'.join(components)}"
    return Path(args.work_dir or default)


def _above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return number


def _fraction(text: str) -> float:
    number = _above_zero(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(f"must be below 1, got {text}")
    return number


_UNITS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1, "": 3600}


def parse_duration(text: str) -> float:
    """Return the seconds of ``"2h"``, ``"90min"``, ``"1h30min"``; a bare number is hours.

    >>> parse_duration("1h30min"), parse_duration("45 s"), parse_duration("0.5")
    (5400.0, 45.0, 1800.0)

    Raises:
        argparse.ArgumentTypeError: not a duration, or not above zero.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s|)", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.replace(" ", "") or not parts:
        raise argparse.ArgumentTypeError(
            f"expected a duration such as 2h, 90min or 1h30min, got {text!r}"
        )
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"must be longer than zero, got {text!r}")
    return seconds
