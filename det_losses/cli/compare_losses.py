"""Train one config with several losses, and report which differences are significant."""

import argparse
import shlex
import sys
from typing import Any

from det_losses.cli.arguments import (
    Parser,
    add_config,
    add_dry_run,
    add_folds,
    add_own_data,
    add_training,
    argument_type,
    new_parser,
)
from det_losses.cli.errors import user_errors
from det_losses.evaluation.metrics import METRICS
from det_losses.options.comparison import DEFAULTS, KINDS, ComparisonOptions

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
  det-losses compare --losses giou eiou --command \
      "python train.py --loss {loss} --seed {seed} --train {train_ann} --out {work_dir}" \
      --train-ann FILE --train-images DIR --val-ann FILE --val-images DIR

A loss gets the published setting of its slot, as in a config. Parameters in parentheses take
precedence. Repeating the command resumes the comparison; more losses or seeds can be added to it.
det-losses report rebuilds the report."""


def main(argv: list[str] | None = None) -> int:
    """Compare; exit status 0 if all runs succeeded, 1 if one failed, 130 if interrupted."""
    options = ComparisonOptions(**vars(parser().parse_args(argv)))
    given = sys.argv[1:] if argv is None else argv
    with user_errors():
        from det_losses.comparison.comparison import run

        try:
            rows = run(options, shlex.join(["python", "-m", "det_losses", "compare", *given]))
        except KeyboardInterrupt:
            if not options.root.is_dir():
                raise
            print("interrupted; run the same command again to resume")
            report = f"python -m det_losses report {options.root}"
            print(f"{report} writes a report of the finished runs")
            return 130
    return int(any(row["status"] == "failed" for row in rows))


def parser() -> Parser:
    """Return the parser of the tool's options."""
    parser = new_parser("compare", "Train with several losses and test which ones differ.", EXAMPLE)
    add_config(parser, optional="; with --command, it can be left out")
    _add_variants(parser.add_argument_group("variants"))
    _add_weights(parser.add_argument_group("loss weights (default: the published ones)"))
    _add_runs(parser.add_argument_group("runs"))
    _add_trainer(parser.add_argument_group("training by another program (docs/any_trainer.md)"))
    add_training(parser)
    add_dry_run(parser)
    add_own_data(parser, train=True)
    add_folds(parser)
    return parser


def _add_variants(group: argparse._ArgumentGroup) -> None:
    _add(
        group,
        "--losses",
        metavar="LOSS",
        help="Name, or 'Name(key=value, ...)' to set parameters (see list_losses)",
    )
    _add(group, "--component", help="slot of these losses (default: loss_bbox)")
    _add(
        group,
        "--cross",
        metavar="X",
        help="COMPONENT LOSS LOSS...: combine each of --losses with each of these losses of "
        "another slot",
    )
    _add(
        group,
        "--variant",
        metavar="NAME:KEY=VALUE,...",
        help="a variant given by config keys, or by slots with a loss (loss_cls=FocalLoss)",
    )
    _add(
        group,
        "--baseline",
        metavar="LABEL",
        help="default: the first variant; if all are new to --work-dir, its baseline",
    )
    _add(
        group,
        "--metric",
        metavar="METRIC",
        help=f"primary metric: {', '.join(METRICS)}, or AP/<class> (default: AP)",
    )


def _add_weights(group: argparse._ArgumentGroup) -> None:
    _add(
        group,
        "--match-weights",
        metavar="{gradient}",
        help="set each loss_weight so that the gradient norms on the box outputs match the "
        "baseline's",
    )
    _add(
        group,
        "--weights",
        metavar="X",
        help="train each loss with its weight times each X",
    )


def _add_runs(group: argparse._ArgumentGroup) -> None:
    _add(
        group,
        "--seeds",
        help="seeds (default: 0 1 2; with --folds, one for each fold; with --budget, as many as "
        "fit; with --until-decided, as many of 0 to 7 as are needed)",
    )
    _add(
        group,
        "--jobs",
        metavar="N",
        help="number of parallel runs (default: the fastest, measured if the runs take minutes; on "
        "Ray, as many as the cluster has room for)",
    )
    _add(
        group,
        "--executor",
        metavar="{local,ray}",
        help="where the runs train: on this machine, or on a Ray cluster (docs/scaling.md)",
    )
    _add(
        group,
        "--address",
        metavar="ADDRESS",
        help="address of the Ray cluster, or auto for that of this machine",
    )
    _add(group, "--cpus-per-run", metavar="N", help="cores of a run on Ray (default: 1)")
    _add(
        group,
        "--gpus-per-run",
        metavar="N",
        help="GPUs of a run on Ray, such as 0.25 for four runs on one (default: 1 if the cluster "
        "has any)",
    )
    _add(
        group,
        "--budget",
        metavar="TIME",
        help="train as many seeds as fit in this time (2h, 90min); runs are stopped at its end",
    )
    _add(
        group,
        "--until-decided",
        help="look at the results at 3, 5 and 8 seeds, with 95%% confidence over all looks; train "
        "further seeds only for the losses that may still be the best; stop when one is left, or "
        "choosing the leader costs at most --within, or --budget ends",
    )
    _add(
        group,
        "--within",
        metavar="POINTS",
        help="a difference that does not matter to you, in points of the metric (default: 1)",
    )
    _add(
        group,
        "--screen",
        help="train all for half of the epochs with one seed first, and compare the better half of "
        "them; the baseline always stays. The rank with one seed is noisy: the best loss can be "
        "dropped",
    )
    _add(
        group,
        "--fork-at",
        metavar="F",
        help="train the first part of the epochs, such as 0.5, with the baseline only, and "
        "continue from there with each loss. This costs less but measures something else: what it "
        "changes to switch the loss late. Such differences are smaller than those of whole "
        "trainings (docs/noise.md)",
    )
    _add(
        group,
        "--resamples",
        metavar="N",
        help="resamples of the validation images for the intervals (default: 1000)",
    )


def _add_trainer(group: argparse._ArgumentGroup) -> None:
    _add(
        group,
        "--command",
        metavar="COMMAND",
        help="train each run by this command, such as 'python train.py --loss {loss} --seed {seed} "
        "--train {train_ann} --val {val_ann} --out {work_dir}'; also {weight}, {label}, "
        "{train_images}, {val_images} and {resume}. Names of losses that are not registered here "
        "are passed unchanged; registered ones are checked",
    )
    _add(
        group,
        "--detections-file",
        metavar="NAME",
        help="the COCO result file that the command leaves in {work_dir}, with the detections on "
        "the images of {val_ann} (default: predictions.json)",
    )


def _add(group: argparse._ArgumentGroup, option: str, **texts: Any) -> None:
    """Add an option with its default and check, which ComparisonOptions has, and its help."""
    name = option.removeprefix("--").replace("-", "_")
    kind = KINDS[name]
    if kind.switch:
        group.add_argument(option, action="store_true", **texts)
        return
    nargs = "+" if kind.several else None
    check = argument_type(kind.check)
    group.add_argument(option, nargs=nargs, type=check, default=DEFAULTS[name], **texts)
