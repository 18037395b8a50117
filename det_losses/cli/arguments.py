"""Options shared by several tools, and the config that they produce."""

from __future__ import annotations

import argparse
import importlib
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
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


class _Version(argparse.Action):
    """Print versions and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> NoReturn:
        from det_losses.versions import versions

        print("\n".join(f"{name} {version}" for name, version in versions().items()))
        parser.exit()


def new_parser(tool: str, description: str, example: str) -> Parser:
    """Return a parser with --version whose help ends with example commands."""
    parser = Parser(
        prog=f"det-losses {tool}",
        description=textwrap.fill(description, _WIDTH),
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        dest=argparse.SUPPRESS,
        default=argparse.SUPPRESS,
        help="print the versions of this package and of torch, torchvision and mmengine, and exit",
    )
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG, --work-dir, --cfg-options, --device and --import."""
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
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="run the model on cpu, cuda or cuda:N (default: the first GPU, or else the CPU)",
    )
    add_imports(parser)


def add_imports(parser: argparse.ArgumentParser) -> None:
    """Add --import."""
    parser.add_argument(
        "--import",
        dest="modules",
        nargs="+",
        action="extend",
        default=[],
        metavar="MODULE",
        help="modules that register your own losses, installed or in the current directory",
    )


def add_figures(parser: argparse.ArgumentParser) -> None:
    """Add --out and --overwrite."""
    parser.add_argument(
        "--out", default="plots", metavar="DIR", help="folder of the figures (default: plots)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing figures")


def import_modules(names: Sequence[str], option: str = "--import") -> list[ModuleType]:
    """Import the modules of an option; the current directory is searched too.

    Raises:
        InputError: a module cannot be imported.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # the current directory; a console script lacks it
    modules = []
    for name in names:
        try:
            modules.append(importlib.import_module(name.removesuffix(".py")))
        except Exception as error:
            raise InputError(
                f"{option} {name}: cannot be imported: {type(error).__name__}: {error}"
            ) from error
    return modules


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add CHECKPOINT, --import, and the options that complete or change what is stored in it."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument(
        "--config",
        metavar="CONFIG",
        help="the config, for a file with weights only; it replaces the stored one",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change entries of the config: model.min_size=640 model.score_thresh=0.01",
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="class names by label, instead of the stored"
    )
    add_imports(parser)


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
    """Add --amp, --weights-from, --fit-anchors and --tensorboard."""
    parser.add_argument(
        "--amp", action="store_true", help="automatic mixed precision (needs an accelerator)"
    )
    parser.add_argument(
        "--weights-from",
        metavar="FILE|NAME",
        help="start from a trained detector: a checkpoint of this package, of torchvision or of "
        "mmdetection, or torchvision's name, such as RetinaNet_ResNet50_FPN_Weights.COCO_V1 "
        "(docs/pretrained.md)",
    )
    parser.add_argument(
        "--fit-anchors",
        action="store_true",
        help="if many training boxes have no anchor, set the sizes that cover most of them, as "
        "check_data shows them; their number per position stays (docs/data.md)",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write losses and metrics for TensorBoard too (tensorboard --logdir DIR); needs "
        "pip install 'det-losses[tensorboard]'",
    )


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add --dry-run."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the plan, with the time it takes by a few timed steps, and stop: nothing is "
        "trained or written",
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


def load_experiment(args: argparse.Namespace, cfg: Config | None = None) -> Config:
    """Return the config of CONFIG with all options applied: those of own data first.

    Args:
        args: the parsed options.
        cfg: a config to use instead of that of CONFIG.

    Raises:
        MissingFileError: no such config.
        InputError: the file cannot be read, or an option does not fit the config.
    """
    from det_losses.engine import config
    from det_losses.engine.device import use_device
    from det_losses.engine.pretrained import use_weights

    _check_folds(args)
    device = getattr(args, "device", None)
    if device not in (None, "cpu") and getattr(args, "launcher", "none") != "none":
        raise InputError(
            f"--device {device} is one GPU for all processes of --launcher {args.launcher}; select "
            "GPUs with the variable CUDA_VISIBLE_DEVICES"
        )
    use_device(device)
    modules = getattr(args, "modules", [])
    import_modules(modules)
    cfg = config.read_config(args.config) if cfg is None else cfg
    config.import_in_runs(cfg, modules)
    for split in ("train", "val"):
        ann_file, images = (getattr(args, f"{split}_{what}", None) for what in ("ann", "images"))
        config.use_own_data(cfg, split, ann_file, images)
    _check_both_splits(args, cfg)
    if getattr(args, "amp", False):
        config.use_amp(cfg)
    config.use_losses(cfg, getattr(args, "loss", []))
    config.apply_options(cfg, args.cfg_options)
    if getattr(args, "weights_from", None):
        use_weights(cfg, args.weights_from)
    if getattr(args, "folds", None):
        config.use_folds(cfg, args.folds, args.fold_key)
    if getattr(args, "classes", None):
        config.use_classes(cfg, args.classes)
    if getattr(args, "allow_outside", False):
        config.allow_outside(cfg)
    if getattr(args, "skip_broken", False):
        config.skip_broken_images(cfg)
    return cfg


def _check_both_splits(args: argparse.Namespace, cfg: Config) -> None:
    """Check that own training data has own validation data, and the other way round.

    The config's data for the other split is accepted if it is in COCO format and exists.

    Raises:
        InputError: it does not; the message names the missing options.
    """
    given = {split: getattr(args, f"{split}_ann", None) for split in ("train", "val")}
    runs = "train_ann" in args and "device" in args  # a training with its evaluation
    if not runs or all(given.values()) or not any(given.values()) or getattr(args, "folds", None):
        return
    has, lacks = ("train", "val") if given["train"] else ("val", "train")
    from det_losses.engine.config import has_coco_files

    if not has_coco_files(cfg, f"{lacks}_dataloader"):
        message = f"--{has}-ann requires --{lacks}-ann and --{lacks}-images"
        if lacks == "val" and "folds" in args:
            message += ", or --folds K to evaluate on parts of the training data"
        raise InputError(message)


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
