"""Train one config."""

import argparse
import copy
import sys
from pathlib import Path

from det_losses.cli.arguments import (
    SEED,
    add_config,
    add_losses,
    add_own_data,
    add_training,
    load_experiment,
    new_parser,
)
from det_losses.cli.errors import interruptible, logged_errors, user_errors

EXAMPLE = """  det-losses train quickstart/retinanet_shapes --work-dir work_dirs/mine --seed 0
  det-losses train quickstart/retinanet_shapes --loss loss_bbox=CIoULoss
  det-losses train quickstart/retinanet_shapes --work-dir work_dirs/mine --resume
  torchrun --nproc_per_node 2 -m det_losses train CONFIG --launcher pytorch"""


def main(argv: list[str] | None = None) -> int:
    """Train; exit status 1 if training failed, 2 for a user error, 130 if interrupted."""
    args = _parser().parse_args(argv)

    from det_losses.engine import build_runner
    from det_losses.engine.run import build_parts, claim_work_dir, removed_on_error, train_run

    with interruptible(), user_errors():
        cfg = load_experiment(args)
        cfg.launcher = args.launcher
        if args.seed is not None:
            cfg.merge_from_dict({"randomness.seed": args.seed})
        cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"work_dirs/{Path(args.config).stem}"
        given = copy.deepcopy(cfg)
        claim_work_dir(cfg, args.resume)
        with removed_on_error(Path(cfg.work_dir)):
            runner = build_runner(cfg)
            build_parts(runner)
    try:
        with logged_errors(runner, "training"):
            train_run(runner, given)
    except KeyboardInterrupt:
        print(f"interrupted; resume with --work-dir {cfg.work_dir} --resume", file=sys.stderr)
        return 130
    print(f"done; metrics.json, checkpoints and logs are in {cfg.work_dir}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("train", "Train one config. An existing run is never overwritten.", EXAMPLE)
    add_config(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="PATH",
        help="resume the run in --work-dir, or from the checkpoint PATH",
    )
    parser.add_argument("--seed", type=SEED, help="random seed")
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch"),
        default="none",
        help="use pytorch if torchrun starts the processes (default: none)",
    )
    add_losses(parser)
    add_training(parser)
    add_own_data(parser, train=True)
    return parser
