"""Options shared by several tools."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any, NoReturn

from det_losses.errors import InputError, MissingFileError, did_you_mean, printable
from det_losses.options import checks
from det_losses.options.call import divide_data
from det_losses.options.checks import Check

if TYPE_CHECKING:
    from det_losses.inference.trained import TrainedDetector

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
        """Parse the command line of a tool; after an error, exit with status 2.

        --data becomes --train-ann and --val-ann.
        """
        try:
            found = super().parse_args(*args, **kwargs)
            divide_data(vars(found))
        except (InputError, MissingFileError) as error:
            self.exit(2, f"error: {error}\n'{self.prog} --help' lists all options\n")
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


def add_config(parser: argparse.ArgumentParser, *, optional: str = "") -> None:
    """Add CONFIG, --work-dir, --cfg-options, --device and --import.

    Args:
        parser: the parser.
        optional: when CONFIG can be left out, for its help; empty: never.
    """
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?" if optional else None,
        help=f"a config file, or the name of a shipped config (list_configs){optional}",
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


def argument_type(check: Check) -> Check:
    """Return a check of an option for the ``type`` of an argument, whose messages are its own."""

    def parse(text: str) -> Any:
        try:
            return check(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def given_detector(args: argparse.Namespace, device: str | None) -> TrainedDetector:
    """Return the detector of CHECKPOINT with the options of :func:`add_checkpoint`.

    What differs from its training is printed.

    Raises:
        UserError: the checkpoint or an option cannot be used.
    """
    from det_losses.inference import load_detector
    from det_losses.registry import import_modules

    import_modules(args.modules)
    detector = load_detector(
        args.checkpoint,
        config=args.config,
        options=args.cfg_options,
        classes=args.classes,
        device=device,
    )
    for note in detector.notes:
        print(f"note: {printable(note)}")
    return detector


def whole_number(low: int, high: int | None = None) -> Check:
    """Return the ``type`` of an argument that is an integer from ``low`` to ``high``."""
    return argument_type(checks.whole_number(low, high))


SEED = argument_type(checks.SEED)
RESAMPLES = argument_type(checks.RESAMPLES)


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
        "--amp",
        action="store_true",
        help="automatic mixed precision: on a GPU float16, or optim_wrapper.dtype='bfloat16' of "
        "the config; bfloat16 on a CPU that computes in it, where some models train slower "
        "with it (docs/scaling.md)",
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
        "trained or written, except that built-in data (quickstart/*) are generated if missing",
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
