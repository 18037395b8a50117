"""Options shared by several tools, and the config that they produce."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from det_losses.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from mmengine.config import Config

_WIDTH = 80  # characters per line of a description


class Parser(argparse.ArgumentParser):
    """A parser that suggests the nearest option for a misspelled one."""

    def error(self, message: str) -> NoReturn:
        """Raise the error of an argument.

        Raises:
            InputError: always.
        """
        for word in (each.rstrip(":") for each in message.split()):
            known = self._option_string_actions
            if word.startswith("--") and word not in known and (hint := did_you_mean(word, known)):
                message = f"{message}. {hint}"
                break
        raise InputError(message)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line of a tool; after an error, exit with status 2."""
        try:
            return self.check_args(*args, **kwargs)
        except InputError as error:
            self.exit(2, f"error: {error}\n'{self.prog} --help' lists all options\n")

    def check_args(self, *args: Any, **kwargs: Any) -> argparse.Namespace:
        """Parse arguments; --data becomes --train-ann and --val-ann.

        Raises:
            InputError: an argument is invalid.
        """
        found = super().parse_args(*args, **kwargs)
        if getattr(found, "data", None) is not None:
            _divide_data(found)
        return found


def new_parser(tool: str, description: str, example: str) -> Parser:
    """Return a parser whose help ends with example commands."""
    return Parser(
        prog=f"det-losses {tool}",
        description=textwrap.fill(description, _WIDTH),
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG, --work-dir and --cfg-options."""
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="a config file, or the name of a shipped config (list_configs)",
    )
    parser.add_argument("--work-dir", metavar="DIR", help="output directory")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change entries of the config: train_cfg.max_epochs=24 'model.num_convs=2'",
    )


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a parser of integers from ``low`` to ``high``, for the ``type`` of an option."""
    expected = f"at least {low}" if high is None else f"from {low} to {high}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
        if number < low or (high is not None and number > high):
            raise argparse.ArgumentTypeError(f"must be {expected}, got {number}")
        return number

    return parse


SEED = whole_number(0, 2**32 - 1)  # the range of numpy's seeds
RESAMPLES = whole_number(100)  # with fewer resamples, standard errors are too imprecise


def add_losses(parser: argparse.ArgumentParser) -> None:
    """Add --loss."""
    parser.add_argument(
        "--loss",
        nargs="+",
        action="extend",
        default=[],
        metavar="SLOT=LOSS",
        help="set the loss of a slot: loss_bbox=CIoULoss 'loss_cls=FocalLoss(gamma=1.5)'; other "
        "parameters get the published setting of that slot",
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add --amp."""
    parser.add_argument(
        "--amp", action="store_true", help="automatic mixed precision (needs an accelerator)"
    )


def add_own_data(parser: argparse.ArgumentParser, *, train: bool) -> None:
    """Add --data, --val-ann and --val-images; with ``train`` also --train-ann, --train-images."""
    group = parser.add_argument_group(
        "own data",
        "your own data in COCO, YOLO or Pascal VOC format; the config's subset options are ignored",
    )
    splits = "training and validation data" if train else "validation data"
    group.add_argument(
        "--data",
        metavar="PATH",
        help=f"{splits} of YOLO (data.yaml) or Pascal VOC (the folder with Annotations), with "
        "their images",
    )
    for split in ("train", "val") if train else ("val",):
        group.add_argument(
            f"--{split}-ann",
            nargs="+",
            metavar="FILE",
            help="annotation json, or data as for --data; the classes of several are joined by "
            "name",
        )
        group.add_argument(
            f"--{split}-images",
            nargs="+",
            metavar="DIR",
            help="folder of its images; one for all annotation jsons, or one for each",
        )
    group.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave out images that cannot be read, and list them, instead of stopping",
    )
    group.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="use only these classes; images without them are kept",
    )
    group.add_argument(
        "--allow-outside",
        action="store_true",
        help="read image files outside the image folder: by '..', absolute paths or links",
    )


def _divide_data(args: argparse.Namespace) -> None:
    """Set --train-ann and --val-ann to --data; with --folds, which are of the training data, one.

    Raises:
        InputError: one of them or its images are given, or the data is a file with one split.
    """
    splits = [split for split in ("train", "val") if hasattr(args, f"{split}_ann")]
    options = [f"{split}_{what}" for split in splits for what in ("ann", "images")]
    if any(getattr(args, option) is not None for option in options):
        names = ", ".join(f"--{option.replace('_', '-')}" for option in options)
        raise InputError(f"--data gives all data; leave out {names}")
    if Path(args.data).is_file() and Path(args.data).suffix.lower() not in (".yaml", ".yml"):
        raise InputError(
            f"--data {args.data}: expected a data.yaml (YOLO) or a folder (Pascal VOC); a file of "
            f"one split belongs to --{splits[-1]}-ann"
        )
    for split in splits:
        if split == "train" or not getattr(args, "folds", None):
            setattr(args, f"{split}_ann", [args.data])


def add_folds(parser: argparse.ArgumentParser) -> None:
    """Add --folds and --fold-key."""
    group = parser.add_argument_group("folds of the training data, instead of validation data")
    group.add_argument(
        "--folds",
        type=whole_number(2),
        metavar="K",
        help="divide the training data into K parts of about equal size; seed s trains on all but "
        "part s mod K and is evaluated on that one, so every image is evaluated (default seeds: 0 "
        "to K - 1). 5 is a good number",
    )
    group.add_argument(
        "--fold-key",
        metavar="KEY",
        help="entry of the json's images, such as video_id or patient: images with the same value "
        "stay in one part",
    )


def load_experiment(args: argparse.Namespace) -> Config:
    """Return the config of CONFIG with all options applied: those of own data first.

    Raises:
        MissingFileError: no such config.
        InputError: the file cannot be read, or an option does not fit the config.
    """
    from det_losses.engine import config

    cfg = config.read_config(args.config)
    _check_folds(args)
    for split in ("train", "val"):
        ann_file, images = (getattr(args, f"{split}_{what}", None) for what in ("ann", "images"))
        config.use_own_data(cfg, split, ann_file, images)
    if getattr(args, "amp", False):
        config.use_amp(cfg)
    config.use_losses(cfg, getattr(args, "loss", []))
    config.apply_options(cfg, args.cfg_options)
    if getattr(args, "folds", None):
        config.use_folds(cfg, args.folds, args.fold_key)
    if getattr(args, "classes", None):
        config.use_classes(cfg, args.classes)
    if getattr(args, "allow_outside", False):
        config.allow_outside(cfg)
    if getattr(args, "skip_broken", False):
        config.skip_broken_images(cfg)
    return cfg


def _check_folds(args: argparse.Namespace) -> None:
    """Check --folds and --fold-key against the other options.

    Raises:
        InputError: --fold-key without --folds, or validation data with --folds.
    """
    if getattr(args, "folds", None) is None:
        if getattr(args, "fold_key", None) is not None:
            raise InputError("--fold-key requires --folds")
    elif args.val_ann is not None or args.val_images is not None:
        raise InputError(
            "--folds evaluates on parts of the training data; leave out --val-ann and "
            "--val-images, or --folds"
        )
