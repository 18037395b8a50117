"""Compare COCO result files from any framework."""

from pathlib import Path

from det_losses.cli.arguments import new_parser, whole_number
from det_losses.cli.errors import user_errors
from det_losses.cli.report import add_statistics
from det_losses.errors import InputError
from det_losses.evaluation.metrics import MAX_DETS

EXAMPLE = """  det-losses compare_detections instances_val.json giou.json eiou.json
  det-losses compare_detections instances_val.json --out work_dirs/detections \\
      giou=giou_0.json,giou_1.json,giou_2.json eiou=eiou_0.json,eiou_1.json,eiou_2.json

The first name is the baseline. Give one file per seed, with the seeds in the same order for each
name."""


def main(argv: list[str] | None = None) -> int:
    """Print the result and the tables; with --out also write the report."""
    parser = new_parser(
        "compare_detections", "Test which COCO result files differ significantly.", EXAMPLE
    )
    parser.add_argument("truth", metavar="GT", help="annotation json of the evaluated images")
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="FILE, or NAME=FILE,FILE,... with one file per seed (default name: the file name)",
    )
    parser.add_argument("--out", metavar="DIR", help="also write the report into this folder")
    parser.add_argument(
        "--max-dets",
        type=whole_number(1),
        default=MAX_DETS,
        metavar="N",
        help="detections per image and class to evaluate, those of highest score (default: "
        f"{MAX_DETS}, as in COCO)",
    )
    add_statistics(parser)
    args = parser.parse_args(argv)

    from det_losses.report import Study, details, summary, write_report

    with user_errors():
        study = Study.from_detections(
            Path(args.truth),
            parse_results(args.results),
            baseline=args.baseline,
            metric=args.metric,
            resamples=args.resamples,
            within=args.within,
            max_dets=args.max_dets,
        )
        text = f"{summary(study)}\n\n{details(study)}"
        file = write_report(study, Path(args.out)) if args.out else None
    print(text)
    if file:
        print(f"\nreport: {file} (report.md and differences.csv are in the same folder)")
    return 0


def parse_results(texts: list[str]) -> dict[str, list[Path]]:
    """Return name -> files of ``FILE`` and ``NAME=FILE,FILE``.

    The path of an existing file is taken literally, even if it contains ``=`` or a comma.

    Raises:
        InputError: a name is given twice, or without a file.
    """
    found: dict[str, list[Path]] = {}
    for text in texts:
        name, equals, files = text.partition("=")
        if not equals or Path(text).is_file():
            name, files = Path(text).stem, text
        paths = [Path(file) for file in files.split(",") if file]
        if Path(files).is_file():
            paths = [Path(files)]
        if not name or not paths:
            raise InputError(f"{text!r}: expected FILE or NAME=FILE,FILE,...")
        if name in found:
            raise InputError(
                f"two results have the name {name}; use NAME=FILE to give them different names"
            )
        found[name] = paths
    return found
