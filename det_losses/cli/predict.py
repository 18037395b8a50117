"""Detect objects in images and videos with a checkpoint."""

import argparse
import itertools
import sys
import time
from collections import Counter
from pathlib import Path

from det_losses.cli.arguments import (
    add_checkpoint,
    given_detector,
    new_parser,
    whole_number,
)
from det_losses.cli.errors import user_errors
from det_losses.errors import counted, printable

EXAMPLE = """  det-losses predict work_dirs/mine/epoch_12.pth photo.jpg
  det-losses predict work_dirs/mine/epoch_12.pth photos/ 'more/*.png' clip.mp4 --threshold 0.5"""


def main(argv: list[str] | None = None) -> int:
    """Predict; exit status 1 if a file could not be read, 2 for a user error."""
    args = _parser().parse_args(argv)

    from det_losses.inference import detect, file_frames
    from det_losses.inference.output import JSON_FILE, Output, new_folder
    from det_losses.inference.sources import find_files, is_video

    broken: list[str] = []

    def report(error: Exception) -> None:
        broken.append(printable(str(error)))
        print(f"error: {broken[-1]}", file=sys.stderr)

    with user_errors():
        files = find_files(args.sources)
        detector = given_detector(args, args.device)
        folder = new_folder(args.out)
        begin = time.monotonic()
        with Output(folder, files, detector, pictures=not args.no_pictures) as output:
            found = detect(detector, file_frames(files, report), args.threshold, args.batch_size)
            for file, of_file in itertools.groupby(found, key=lambda pair: pair[1]["file"]):
                frames, names = 0, Counter()
                for image, detection in of_file:
                    output.add(image, detection)
                    frames, names = frames + 1, names + Counter(detection["names"])
                print(printable(_line(file, frames if is_video(file) else None, names)))
        seconds = time.monotonic() - begin
    boxes, images = len(output.annotations), len(output.images)
    written = JSON_FILE if args.no_pictures else f"the pictures and {JSON_FILE}"
    print(
        f"{counted(boxes, 'box')} with a score of {args.threshold:g} or more in "
        f"{counted(images, 'image')}, "
        f"{seconds:.1f} s; {folder} has {written}"
    )
    if images and not boxes:
        print("no box: a lower --threshold shows less certain ones")
    return 1 if broken else 0


def _line(file: Path, frames: int | None, names: Counter[str]) -> str:
    """Return the line of a file: the number of boxes of each class."""
    found = ", ".join(f"{count} {name}" for name, count in names.most_common()) or "nothing"
    return f"{file}: {found}" if frames is None else f"{file}: {frames} frames, {found}"


def _score(text: str) -> float:
    """Parse a score, 0 to 1."""
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return score


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "predict",
        "Detect objects in images and videos. Config and class names are those stored in the "
        "checkpoint. Pictures with boxes and predictions.json in COCO format are written.",
        EXAMPLE,
    )
    add_checkpoint(parser)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="image, video, folder (searched with its subfolders) or pattern such as 'a/*.jpg'",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="new or empty output folder (default: the next number in work_dirs/predict)",
    )
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="run the model on cpu, cuda or cuda:N (default: the first GPU, or else the CPU)",
    )
    parser.add_argument(
        "--threshold",
        type=_score,
        default=0.3,
        metavar="SCORE",
        help="lowest score of a box (default: 0.3); the model itself drops boxes below its "
        "score_thresh, usually 0.05",
    )
    parser.add_argument(
        "--batch-size",
        type=whole_number(1),
        default=8,
        metavar="N",
        help="largest number of images of equal size that are computed together (default: 8)",
    )
    parser.add_argument("--no-pictures", action="store_true", help="write predictions.json only")
    return parser
