"""List all losses, or show the card of one."""

import argparse
from pathlib import Path

from det_losses.cli.arguments import add_figures, add_imports, import_modules, new_parser
from det_losses.cli.errors import user_errors
from det_losses.cli.plot_losses import draw
from det_losses.errors import InputError, did_you_mean
from det_losses.files import write_text

KINDS = ("box", "classification", "distribution")


def main(argv: list[str] | None = None) -> int:
    """Print a table of losses or a card, or write all cards as Markdown."""
    args = _parser().parse_args(argv)
    with user_errors():
        import_modules(args.modules)
        if args.plot and not args.name:
            raise InputError("--plot needs the NAME of a loss")
        if args.markdown:
            _write_markdown(Path(args.markdown))
        elif args.name:
            print(_card(args.name))
            if args.plot:
                print("\n".join(draw([args.name], args)))
        else:
            print(_table(args.kind))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "list_losses",
        "List all registered losses, or show the card of one: formula, parameters, use, behaviour "
        "on disjoint boxes, paper. A box loss is computed on decoded boxes or on encoded deltas; "
        "a classification loss has an activation.",
        "  det-losses list_losses GIoULoss\n  det-losses list_losses --kind box\n"
        "  det-losses list_losses CIoULoss --plot\n"
        "  det-losses list_losses MyLoss --import my_losses",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("name", nargs="?", metavar="NAME", help="show the card of this loss")
    what.add_argument("--kind", choices=KINDS, help="only losses of this kind")
    what.add_argument(
        "--markdown",
        metavar="FILE",
        help="write all cards to FILE; its section 'Comparison with other libraries' is kept",
    )
    parser.add_argument(
        "--plot", action="store_true", help="also draw the curves of NAME; see plot_losses"
    )
    add_figures(parser)
    add_imports(parser)
    return parser


def _table(kind: str | None) -> str:
    from det_losses.losses import list_losses
    from det_losses.losses.core.card import SHARED
    from det_losses.report.markdown import table

    lines = [
        [
            info.name,
            info.kind,
            info.space or info.activation or "-",
            info.paper,
            ", ".join(f"{k}={v!r}" for k, v in info.defaults.items() if k not in SHARED),
        ]
        for info in list_losses()
        if kind in (None, info.kind)
    ]
    shown = table(["loss", "kind", "space", "paper", "defaults"], lines)
    return (
        f"{shown}\nAll losses also have reduction='mean' and loss_weight=1.0. In a slot of a "
        "detector they get the published setting of that slot."
    )


def _card(name: str) -> str:
    from det_losses.losses import list_losses
    from det_losses.losses.core.card import card_text, loss_card

    known = {info.name: info for info in list_losses()}
    if name not in known:
        hint = did_you_mean(name, known, "Run list_losses without NAME to list all losses.")
        raise InputError(f"no loss {name!r}. {hint}")
    return card_text(loss_card(known[name]))


def _write_markdown(path: Path) -> None:
    from det_losses.losses.core.card import cards_markdown, loss_cards

    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    write_text(path, cards_markdown(loss_cards(), old))
    print(f"wrote {path}")
