"""Write a small subset of a COCO dataset."""

from pathlib import Path
from typing import Any

from det_losses.cli.arguments import new_parser
from det_losses.cli.errors import user_errors
from det_losses.errors import printable

EXAMPLE = """  det-losses make_subset work_dirs/cats_and_dogs \\
      --train-ann coco/annotations/instances_train2017.json \\
      --val-ann coco/annotations/instances_val2017.json \\
      --classes cat dog --num-train 2000 --num-val 400 --seed 0

The images are not copied. Train with
  --train-ann work_dirs/cats_and_dogs/train.json --train-images coco/train2017 \\
  --val-ann work_dirs/cats_and_dogs/val.json --val-images coco/val2017"""


def main(argv: list[str] | None = None) -> int:
    """Write train.json, val.json and manifest.json; print the numbers of images and boxes."""
    parser = new_parser(
        "make_subset", "Write a reproducible subset of COCO annotation files.", EXAMPLE
    )
    parser.add_argument("out_dir", metavar="OUT_DIR", help="output folder")
    parser.add_argument("--train-ann", required=True, metavar="FILE")
    parser.add_argument(
        "--val-ann",
        metavar="FILE",
        help="default: images of --train-ann that are not in the training subset",
    )
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--num-train", type=int, metavar="N", help="default: all")
    parser.add_argument(
        "--num-val", type=int, metavar="N", help="default: all; required without --val-ann"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random selection (default: 0)"
    )
    parser.add_argument(
        "--keep-negatives",
        action="store_true",
        help="keep validation images without the classes: detections there are false positives",
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite an existing subset")
    args = parser.parse_args(argv)

    from det_losses.data.subset import make_subset

    with user_errors():
        manifest = make_subset(**vars(args))
    print(printable(_summary(manifest)))
    print(f"\nwritten to {Path(args.out_dir)}: train.json, val.json, manifest.json")
    return 0


def _summary(manifest: dict[str, Any]) -> str:
    from det_losses.report.markdown import table

    train, val = manifest["train"], manifest["val"]
    names = manifest["classes"]
    counts = [
        [name, *(part["per_class"][name][what] for part in (train, val) for what in _COUNTS)]
        for name in names
    ]
    totals = [part[key] for part in (train, val) for key in ("num_images", "num_boxes")]
    headers = ["class", *(f"{split} {what}" for split in ("train", "val") for what in _COUNTS)]
    return table(headers, [*counts, ["all", *totals]])


_COUNTS = ("images", "boxes")
