"""Write the report of one or more comparisons."""

import argparse
from pathlib import Path

from det_losses.cli.arguments import RESAMPLES, new_parser
from det_losses.cli.errors import user_errors
from det_losses.errors import InputError, printable

EXAMPLE = """  det-losses report work_dirs/quickstart
  det-losses report machine_a/quickstart machine_b/quickstart --out work_dirs/both

Several directories are merged into one report. They must share the config; losses and seeds may
differ."""


def main(argv: list[str] | None = None) -> int:
    """Write report.html, report.md and differences.csv; print the result and the table."""
    parser = new_parser("report", "Write the report of stored comparisons.", EXAMPLE)
    parser.add_argument("dirs", nargs="+", metavar="DIR", help="directory of a comparison")
    parser.add_argument(
        "--out", metavar="DIR", help="output folder (default: DIR; required with several)"
    )
    add_statistics(parser)
    args = parser.parse_args(argv)

    from det_losses.comparison.rebuild import rebuild
    from det_losses.comparison.runner import is_running
    from det_losses.report import Study, summary, write_report

    with user_errors():
        if len(args.dirs) > 1 and args.out is None:
            raise InputError(f"--out is required to merge {len(args.dirs)} directories")
        dirs = [Path(folder) for folder in args.dirs]
        for sentence in (sentence for folder in dirs for sentence in rebuild(folder)):
            print(f"{sentence}\n")
        study = Study.load(
            dirs,
            baseline=args.baseline,
            metric=args.metric,
            resamples=args.resamples,
            within=args.within,
            interim=any(map(is_running, dirs)),
        )
        text = summary(study)
        file = write_report(study, Path(args.out or args.dirs[0]))
    print(printable(text))
    print(f"\nreport: {file} (report.md and differences.csv are in the same folder)")
    return 0


def add_statistics(parser: argparse.ArgumentParser) -> None:
    """Add --baseline, --metric, --resamples and --within."""
    parser.add_argument(
        "--baseline", metavar="LABEL", help="the variant that all others are compared with"
    )
    parser.add_argument(
        "--metric", help="primary metric: AP, AP50, AP75, ... or AP/<class> (default: AP)"
    )
    parser.add_argument(
        "--resamples", type=RESAMPLES, metavar="N", help="resamples of the images (default: 1000)"
    )
    parser.add_argument(
        "--within",
        type=points,
        metavar="POINTS",
        help="a difference that does not matter to you, in points of the metric (default: 1)",
    )


def points(text: str) -> float:
    """Parse a difference in points, above 0 and below 100; return it in 0..1."""
    number = float(text)
    if not 0 < number < 100:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 100, got {text}")
    return number / 100
