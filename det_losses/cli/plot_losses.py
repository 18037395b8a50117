"""Draw the curves or the landscapes of losses."""

import argparse
from pathlib import Path

from det_losses.cli.arguments import add_figures, add_imports, import_modules, new_parser
from det_losses.cli.errors import user_errors
from det_losses.errors import printable


def main(argv: list[str] | None = None) -> int:
    """Write the figures; print their files, remarks and the numbers of marked cells."""
    args = _parser().parse_args(argv)
    with user_errors():
        import_modules(args.modules)
        print(printable("\n".join(draw(args.losses, args, landscape=args.landscape))))
    return 0


def draw(losses: list[str], args: argparse.Namespace, *, landscape: bool = False) -> list[str]:
    """Draw losses into the folder of ``--out``.

    Returns:
        The lines to print.

    Raises:
        UserError: a loss cannot be built or drawn, or a file exists.
    """
    from det_losses.plots.curve_figure import draw_curves
    from det_losses.plots.landscape_figure import draw_landscapes
    from det_losses.plots.probe import named_losses

    write = draw_landscapes if landscape else draw_curves
    files, remarks = write(named_losses(losses), Path(args.out), overwrite=args.overwrite)
    return [*remarks, *(f"wrote {file}" for file in files)]


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "plot_losses",
        "Draw value and gradient of losses, one figure for each kind of loss, as SVG and PNG: box "
        "losses on deltas against the error, those of decoded boxes against IoU, offset, scale "
        "and aspect ratio, classification losses against the probability. All curves are "
        "computed by calling the loss.",
        "  det-losses plot_losses L1Loss MSELoss SmoothL1Loss 'SmoothL1Loss(beta=1/9)'\n"
        "  det-losses plot_losses CIoULoss 'InnerIoU(CIoULoss, ratio=0.7)' --landscape\n"
        "  det-losses plot_losses MyLoss --import my_losses --out figures",
    )
    parser.add_argument(
        "losses",
        nargs="+",
        metavar="LOSS",
        help="a name, or a loss as text: 'SmoothL1Loss(beta=0.5)' 'SumLoss(L1Loss, GIoULoss)'",
    )
    parser.add_argument(
        "--landscape",
        action="store_true",
        help="draw box losses over the position and over the size of the box instead, with the "
        "direction of gradient descent; mark where it vanishes or leads away from the target",
    )
    add_figures(parser)
    add_imports(parser)
    return parser
