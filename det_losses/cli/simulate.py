"""Simulate box regression under several losses."""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from det_losses.cli.arguments import (
    SEED,
    add_imports,
    new_parser,
    whole_number,
)
from det_losses.cli.errors import user_errors
from det_losses.errors import InputError
from det_losses.files import finite, read_whole_json, write_json, write_text

if TYPE_CHECKING:
    from det_losses.simulation.run import Result, Settings

_LOSSES = ("IoULoss(mode=linear)", "GIoULoss", "DIoULoss", "CIoULoss", "EIoULoss")


def main(argv: list[str] | None = None) -> int:
    """Simulate each loss that has no stored result, then write the table and the figures."""
    args = _parser().parse_args(argv)
    with user_errors():
        _simulate(args)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "simulate",
        "Move anchors to their targets by gradient descent on each loss, as papers do to compare "
        "losses without a network. Writes the sum of the errors at each step, the final error of "
        "each anchor position, figures and an animation. A finished loss is stored and not "
        "simulated again.",
        "  det-losses simulate --losses GIoULoss 'InnerIoU(CIoULoss, ratio=0.7)' --cases 50000\n"
        "  det-losses simulate --comparison work_dirs/quickstart --cases 50000",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--losses",
        nargs="+",
        default=list(_LOSSES),
        metavar="LOSS",
        help=f"box losses, as names or text; default: {' '.join(_LOSSES)}",
    )
    what.add_argument(
        "--comparison",
        metavar="DIR",
        help="simulate the box losses of a finished comparison, and plot its AP against the error",
    )
    add_imports(parser)
    parser.add_argument(
        "--protocol",
        choices=("diou", "wise-iou"),
        default="diou",
        help="whose simulation; default: diou, of the DIoU paper",
    )
    parser.add_argument(
        "--cases",
        type=whole_number(1),
        metavar="N",
        help="simulate a sample of about N cases; default: all 1,715,000",
    )
    parser.add_argument(
        "--steps", type=whole_number(1), metavar="N", help="default: the protocol's"
    )
    parser.add_argument(
        "--seed", type=SEED, default=0, help="of anchor positions and sample; default: 0"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1; default: cpu")
    parser.add_argument(
        "--gradients",
        choices=("exact", "published"),
        default="exact",
        help="published: the gradients of the DIoU paper's code, with their faults",
    )
    parser.add_argument(
        "--out", default="work_dirs/simulation", metavar="DIR", help="output directory"
    )
    return parser


def _simulate(args: argparse.Namespace) -> None:
    from det_losses.registry import import_modules

    import_modules(args.modules)
    from det_losses.losses.core.build import loss_config
    from det_losses.losses.core.text import loss_text
    from det_losses.simulation import figures, training
    from det_losses.simulation.protocol import PROTOCOLS
    from det_losses.simulation.run import Settings, simulated_loss

    trained, metric = [], ""
    if args.comparison:
        trained, metric = training.read_comparison(Path(args.comparison))
    losses = [each.loss for each in trained] or args.losses
    losses = list(dict.fromkeys(loss_text(loss_config(each)) for each in losses))
    every = [
        Settings(each, args.protocol, args.cases, args.steps, args.seed, args.gradients)
        for each in losses
    ]
    for settings in every:  # errors of all losses come before the first simulation
        simulated_loss(settings)
    PROTOCOLS[args.protocol].draw(args.cases, args.seed)
    _check_device(args.device)
    out = Path(args.out)
    results = [found for each in every if (found := _result(each, out, args.device))]
    if not results:
        raise InputError("no loss is left: the reasons are above")
    by_loss = {each.settings["loss"]: each for each in results}
    _write_tables(results, out)
    figures.curves(results, out / "curves")
    figures.plane(results, out / "plane")
    figures.animation([each for each in every if each.loss in by_loss], out / "boxes.gif")
    trained = [each for each in trained if each.loss in by_loss]
    if len(trained) > 1:
        _compare(trained, metric, by_loss, out)
    print(f"table, figures and animation: {out}")


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from None


def _result(settings: Settings, out: Path, device: str) -> Result | None:
    """Return the stored result of these settings, or simulate and store it; None if it fails."""
    from dataclasses import asdict

    from det_losses.simulation.run import Result, simulate

    wanted = asdict(settings)
    digest = hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.]+", "_", settings.loss)[:60].strip("_")
    path = out / "losses" / f"{name}-{digest}.json"
    stored = read_whole_json(path)
    if stored is not None and stored["settings"] == wanted:
        print(f"{settings.loss}: stored result; delete {path} to repeat it", file=sys.stderr)
        return Result(**stored)
    print(f"{settings.loss}: simulating", file=sys.stderr)
    try:
        result = simulate(settings, device)
    except InputError as error:
        print(f"{settings.loss}: left out: {error}", file=sys.stderr)
        return None
    write_json(path, asdict(result))
    return result


def _write_tables(results: Sequence[Result], out: Path) -> None:
    """Print the table; write it as table.md, and all steps as results.csv and results.json."""
    from dataclasses import asdict

    from det_losses.report.markdown import table

    last = len(results[0].error) - 1
    steps = [step for step in (50, last) if step <= last]
    head = [f"error at {step} (millions)" for step in steps]
    rows = [
        [
            result.settings["loss"],
            *(_with_error(result.error[step], result.standard_error[step]) for step in steps),
            f"{result.iou[last]:.3f}",
            f"{100 * result.clamped:.2g}%",
            f"{result.seconds:.0f} s",
        ]
        for result in sorted(results, key=lambda each: each.error[-1])
    ]
    shown = table(["loss", *head, "final IoU", "clamped", "time"], rows)
    first = results[0]
    note = (
        f"{first.settings['protocol']}, {first.cases:,} cases, {first.settings['gradients']} "
        f"gradients, {first.machine}. The error is the sum over all cases of the protocol of |x| + "
        "|y| + |w| + |h|. "
        + ("± is the standard error of the sample of cases. " if first.standard_error[-1] else "")
        + "Clamped: steps in which a side was kept positive."
    )
    print(f"{shown}\n{note}")
    write_text(out / "table.md", f"{shown}\n\n{note}\n")
    lines = ["loss,step,error,standard_error,iou"]
    for each in results:
        loss = each.settings["loss"]
        columns = zip(each.error, each.standard_error, each.iou, strict=True)
        lines += [f'"{loss}",{t},{e:.6g},{s:.4g},{i:.6f}' for t, (e, s, i) in enumerate(columns)]
    write_text(out / "results.csv", "\n".join(lines) + "\n")
    write_json(out / "results.json", [finite(asdict(each)) for each in results])


def _with_error(error: float, standard_error: float) -> str:
    """Return millions with three significant digits, and the standard error with as many decimals.

    >>> _with_error(1_975_000, 9_000), _with_error(2_684, 0)
    ('1.98 ± 0.01', '0.00268')
    """
    decimals = min(max(2 - math.floor(math.log10(max(error, 1) / 1e6)), 2), 7)
    shown = f"{error / 1e6:.{decimals}f}"
    return f"{shown} ± {standard_error / 1e6:.{decimals}f}" if standard_error else shown


def _compare(trained: Sequence, metric: str, results: dict[str, Result], out: Path) -> None:
    from dataclasses import asdict

    from det_losses.simulation import training

    matched = [results[each.loss] for each in trained]
    last = len(matched[0].error) - 1
    steps = sorted({min(50, last), last})
    training.scatter(matched, trained, steps, metric, out / "training")
    sentences, stored = [], {}
    for step in steps:
        errors = [each.error[step] for each in matched]
        found = training.rank_correlation(errors, [each.ap for each in trained])
        sentences.append(training.conclusion(found, step, metric))
        stored[str(step)] = finite(asdict(found))
    print("\n".join(sentences))
    write_json(out / "training.json", {"variants": [asdict(v) for v in trained], "ranks": stored})
    write_text(out / "training.md", "\n".join(sentences) + "\n")
