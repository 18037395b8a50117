"""Train one config with several losses, and report mAP of each."""

import argparse
import contextlib
import shlex
import sys
from pathlib import Path

from mmengine.config import Config

from det_losses.cli.arguments import add_config, add_own_data, add_training, new_parser
from det_losses.cli.errors import user_errors
from det_losses.cli.experiment import load_experiment
from det_losses.compare import preflight
from det_losses.compare.comparison import Comparison
from det_losses.compare.guard import locked, signals_as_interrupt
from det_losses.compare.plan import Plan
from det_losses.compare.report import warning
from det_losses.compare.tables import loss_table, weight_table
from det_losses.compare.weights import parse_loss

EXAMPLE = """  det-losses compare quickstart/retinanet_shapes \\
      --losses SmoothL1Loss GIoULoss EIoULoss:loss_weight=2 --seeds 0 1 2

The first loss is the baseline. What a name alone gets is in configs/_base_/loss_weights.py.
The same command again trains what is missing; further losses or seeds are added."""


def main(argv: list[str] | None = None) -> int:
    """Compare; 0 if all runs ended well, 1 if one failed, 130 if it was interrupted."""
    args = _parser().parse_args(argv)
    with contextlib.ExitStack() as stack:
        stack.enter_context(signals_as_interrupt())
        with user_errors():
            cfg = load_experiment(args)
            root = Path(args.work_dir or f"work_dirs/{Path(args.config).stem}_{args.component}")
            plan = _checked_plan(cfg, args)
            root.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(locked(root))
            given = sys.argv[1:] if argv is None else argv
            command = shlex.join(["python", "-m", "det_losses", "compare", *given])
            facts = {"command": command, **preflight.describe(cfg, args.config)}
            comparison = Comparison(cfg, plan, root, lock, facts, args.jobs)
        _announce(comparison)
        try:
            comparison.execute()
        except KeyboardInterrupt:
            print(f"interrupted; the same command continues. So far: {root / 'report.md'}")
            return 130
        return _finish(comparison, root)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("compare", "Train one config with several losses; report mAP.", EXAMPLE)
    add_config(parser)
    parser.add_argument(
        "--losses",
        nargs="+",
        required=True,
        metavar="LOSS",
        help="Name, or Name:key=value,key=value with parameters of its own (list_losses)",
    )
    parser.add_argument(
        "--component", default="loss_bbox", help="which loss of the detector (default: loss_bbox)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="default: 0")
    parser.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="runs at the same time (default: 1)"
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


def _checked_plan(cfg: Config, args: argparse.Namespace) -> Plan:
    """Return the plan of the command after everything that can fail without training was tried."""
    preflight.check_component(cfg, args.component)
    losses = [parse_loss(cfg, cfg.model.type, args.component, text.strip()) for text in args.losses]
    plan = Plan.of(cfg, args.component, losses, args.seeds)
    preflight.check_losses(cfg, args.component, losses)
    preflight.check_runner(cfg, args.component, losses[0])
    return plan


def _announce(comparison: Comparison) -> None:
    meta = comparison.meta()
    images = meta["images"]
    print(f"{images['train']} training and {images['val']} validation images, ", end="")
    print(f"{len(meta['classes'])} classes; {len(comparison.runs)} runs\n")
    print(f"{meta['component']} of {meta['detector']}:\n{weight_table(meta)}\n", flush=True)


def _finish(comparison: Comparison, root: Path) -> int:
    meta, results = comparison.write()
    print(f"\n{loss_table(meta, results)}\n")
    caution = warning(meta, results)
    if caution:
        print(f"{caution}\n")
    failed = [run for run in results if run["status"] == "failed"]
    for run in failed:
        print(f"failed: {run['loss']} seed {run['seed']}: {run['error'].splitlines()[-1]}")
        print(f"        log: {root / run['work_dir'] / 'output.log'}")
    print(f"results: {root / 'report.md'}, results.json and results.csv beside it")
    return 1 if failed else 0
