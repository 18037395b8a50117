"""The command ``python -m det_losses.adapters.transformers``: train one detector."""

import argparse
import json
from typing import Any

from det_losses.adapters.transformers.models import SMALL_MODELS
from det_losses.cli.errors import user_errors

EXAMPLE = """example:
  python -m det_losses.adapters.transformers --model rt_detr_v2_small --loss-iou CIoULoss \\
      --train-ann train.json --train-images images/ --val-ann val.json --val-images images/ \\
      --image-size 320 --epochs 50 --work-dir work_dirs/rt_detr_ciou"""


def main(argv: list[str] | None = None) -> int:
    """Train and detect; the path of the result file is printed."""
    given = vars(_parser().parse_args(argv))

    from det_losses.adapters.transformers.models import import_transformers
    from det_losses.adapters.transformers.training import train

    with user_errors():
        import_transformers().utils.logging.disable_progress_bar()
        print(f"detections: {train(given.pop('model'), **given)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m det_losses.adapters.transformers",
        description="Train a detector of transformers with losses of this package, and write the "
        "detections on the validation images as a COCO result file.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME|FOLDER",
        help=f"{', '.join(SMALL_MODELS)}, or a folder as save_pretrained writes it, with or "
        "without weights",
    )
    for name in ("--train-ann", "--train-images", "--val-ann", "--val-images", "--work-dir"):
        parser.add_argument(name, required=True, metavar="PATH")
    parser.add_argument("--loss-bbox", default="L1Loss", metavar="LOSS", help="instead of L1")
    parser.add_argument("--loss-iou", default="GIoULoss", metavar="LOSS", help="instead of GIoU")
    parser.add_argument("--loss-cls", metavar="LOSS", help="default: the loss of transformers")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--epochs", type=int, default=50, metavar="N", help="default: 50")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="default: 8")
    parser.add_argument(
        "--learning-rate", type=float, default=1e-4, metavar="X", help="default: 1e-4"
    )
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="default: that of the image processor"
    )
    parser.add_argument(
        "--val-interval", type=int, metavar="N", help="also detect after each N epochs"
    )
    parser.add_argument(
        "--arguments",
        type=_json_object,
        metavar="JSON",
        help="further arguments of transformers.TrainingArguments, as a JSON object",
    )
    return parser


def _json_object(text: str) -> dict[str, Any]:
    found = json.loads(text)  # argparse prints a ValueError as an error of the argument
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, got {text}")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
