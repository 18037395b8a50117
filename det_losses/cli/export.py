"""Convert a checkpoint to ONNX."""

import argparse
from pathlib import Path

from det_losses.cli.arguments import (
    add_checkpoint,
    given_detector,
    new_parser,
    whole_number,
)
from det_losses.cli.errors import user_errors
from det_losses.errors import counted

EXAMPLE = """  det-losses export work_dirs/mine/epoch_12.pth --image photo.jpg
  det-losses export work_dirs/mine/epoch_12.pth --out detector.onnx"""


def main(argv: list[str] | None = None) -> int:
    """Export; exit status 1 if the file's detections differ from PyTorch's, 2 for a user error."""
    args = _parser().parse_args(argv)

    from det_losses.data.images import read_upright
    from det_losses.inference.onnx_export import check_packages, compare_onnx, export_onnx, pattern

    with user_errors():
        check_packages()
        detector = given_detector(args, "cpu")
        if detector.transforms:
            names = ", ".join(type(each).__name__ for each in detector.transforms)
            print(f"note: the transforms of test images are not part of the file: {names}")
        image = read_upright(args.image) if args.image else pattern()
        out = Path(args.out or Path(args.checkpoint).with_suffix(".onnx"))
        export_onnx(detector, out, opset=args.opset)
        agreement = compare_onnx(detector, out, image)
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, opset {args.opset}, input image uint8 "
        "[3, height, width] RGB, outputs boxes [n, 4] xyxy, scores [n], labels [n]"
    )
    ours, theirs = agreement.boxes
    print(
        f"on {args.image or 'a test pattern'}, {image.shape[2]} x {image.shape[1]} pixels: PyTorch "
        f"finds {counted(ours, 'box')}, ONNX Runtime {theirs}; largest difference "
        f"{agreement.box_difference:.2g} px, {agreement.score_difference:.2g} in the score"
    )
    if not agreement.holds:
        print("error: the detections of the file differ from PyTorch's; do not use it")
        return 1
    if not ours:
        print("without a box, nothing was compared; give --image with a photo that has objects")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "export",
        "Convert a checkpoint to ONNX, and compare the file with PyTorch on an image. Needs "
        "pip install 'det-losses[export]'.",
        EXAMPLE,
    )
    add_checkpoint(parser)
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="default: onnx")
    parser.add_argument(
        "--out", metavar="FILE", help="new file (default: the checkpoint's name with .onnx)"
    )
    parser.add_argument(
        "--opset",
        type=whole_number(16, 20),
        default=17,
        metavar="N",
        help="version of ONNX's operators, 16 to 20 (default: 17)",
    )
    parser.add_argument(
        "--image", metavar="FILE", help="photo to compare on (default: a test pattern)"
    )
    return parser
