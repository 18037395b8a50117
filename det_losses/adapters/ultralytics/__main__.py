"""``python -m det_losses.adapters.ultralytics``: :func:`train` as a command."""

import argparse
import ast
import sys
from collections.abc import Mapping
from typing import Any

from det_losses.errors import InputError, UserError, printable

EXAMPLE = """example:
  python -m det_losses.adapters.ultralytics --model yolo11n.yaml --loss EIoULoss \\
      --train-ann train.json --train-images images --val-ann val.json --val-images images \\
      --work-dir work_dirs/yolo11n_eiou epochs=100 imgsz=640 batch=16"""


def main(argv: list[str] | None = None) -> int:
    """Train, and print the AP and the paths of what was written."""
    arguments = vars(_parser().parse_args(argv))
    try:
        arguments |= dict(map(_argument, arguments.pop("arguments")))

        from det_losses.adapters.ultralytics import train

        trained = train(**arguments)
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    print(f"AP {trained.metrics['AP']:.1f}, AP50 {trained.metrics['AP50']:.1f} of the last epoch")
    print(f"detections: {trained.detections}\ncheckpoint: {trained.checkpoint}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m det_losses.adapters.ultralytics",
        description="Train a YOLO model by ultralytics' own trainer with other losses.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="yolo11n.yaml", help="default: %(default)s")
    parser.add_argument("--loss", help="box loss instead of CIoU")
    parser.add_argument("--loss-cls", help="classification loss instead of BCE")
    parser.add_argument("--loss-dfl", help="loss of the distributions of distances")
    for name in ("--train-ann", "--train-images", "--val-ann", "--val-images", "--work-dir"):
        parser.add_argument(name, required=True)
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "arguments", nargs="*", metavar="KEY=VALUE", help="arguments of ultralytics' trainer"
    )
    return parser


_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "none": None, "null": None}


def _argument(text: str) -> tuple[str, Any]:
    """Return name and value of ``KEY=VALUE``; the value is a literal of Python, a word or text.

    Raises:
        InputError: there is no name or no ``=``.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"{text!r}: expected KEY=VALUE")
    if value.lower() in _WORDS:
        return name, _WORDS[value.lower()]
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    sys.exit(main())
