"""Train one config."""

import argparse
import contextlib
import copy
import sys
import time
from pathlib import Path

from det_losses.cli import fast_imports
from det_losses.cli.arguments import (
    SEED,
    add_config,
    add_dry_run,
    add_losses,
    add_own_data,
    add_training,
    new_parser,
)
from det_losses.cli.errors import logged_errors, user_errors

EXAMPLE = """  det-losses train quickstart/retinanet_shapes --work-dir work_dirs/mine --seed 0
  det-losses train quickstart/retinanet_shapes --loss loss_bbox=CIoULoss
  det-losses train quickstart/retinanet_shapes --work-dir work_dirs/mine --resume
  torchrun --nproc_per_node 2 -m det_losses train CONFIG --launcher pytorch"""


def main(argv: list[str] | None = None) -> int:
    """Train; exit status 1 if training failed, 2 for a user error, 130 if interrupted."""
    args = _parser().parse_args(argv)

    with fast_imports():
        from det_losses.engine.signals import signals_as_interrupt

    with signals_as_interrupt():
        return _train(args)


def _train(args: argparse.Namespace) -> int:
    from det_losses.engine import build_runner
    from det_losses.engine.config import use_tensorboard
    from det_losses.engine.experiment import load_experiment
    from det_losses.engine.fitted_anchors import use_fitted_anchors
    from det_losses.engine.launcher import is_first_process, prepare_launcher
    from det_losses.engine.outline import training_plan, trial_plan
    from det_losses.engine.run import (
        build_parts,
        claim_work_dir,
        continued_config,
        interrupted,
        locked,
        removed_on_error,
        train_run,
    )

    with contextlib.ExitStack() as stack:
        with user_errors():
            cfg = load_experiment(args)
            if args.launcher != "none":
                cfg.launcher = args.launcher
            prepare_launcher(cfg)
            if args.seed is not None:
                cfg.merge_from_dict({"randomness.seed": args.seed})
            default = f"work_dirs/{Path(args.config).stem}"
            cfg.work_dir = args.work_dir or cfg.get("work_dir") or default
            # With several processes, the first prints, and holds the lock of the directory.
            is_first = is_first_process(cfg)
            if args.fit_anchors:
                said = use_fitted_anchors(cfg, continued_config(cfg, args.resume))
                if is_first:
                    print(said, flush=True)
            if args.dry_run:
                plan = trial_plan(cfg)  # all processes time the steps
                if is_first:
                    print(plan)
                return 0
            given = copy.deepcopy(cfg)
            new = is_first and stack.enter_context(locked(Path(cfg.work_dir)))
            with removed_on_error(Path(cfg.work_dir), new):
                claim_work_dir(cfg, args.resume)
                if args.tensorboard:  # not in `given`: it does not make it another run
                    use_tensorboard(cfg)
                planned = cfg.get("launcher", "none") == "none" and not args.no_plan
                begin = time.perf_counter()
                runner = build_runner(cfg, planned=planned)
                build_parts(runner)
                if planned:
                    built = time.perf_counter() - begin
                    print(training_plan(given, runner, built), flush=True)
        try:
            with logged_errors(runner, "training"):
                train_run(runner, given)
        except KeyboardInterrupt:
            print(interrupted(cfg.work_dir), file=sys.stderr)
            return 130
    if is_first:
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
        choices=("none", "pytorch", "slurm"),
        default="none",
        help="pytorch if torchrun starts the processes, slurm for srun (default: none); "
        "docs/scaling.md",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate with the images per step of all processes, relative to "
        "auto_scale_lr.base_batch_size of the config",
    )
    add_losses(parser)
    add_training(parser)
    add_dry_run(parser)
    parser.add_argument(
        "--no-plan", action="store_true", help="train without printing the plan first"
    )
    add_own_data(parser, train=True)
    return parser
