"""Show every loss."""

from det_losses import list_losses
from det_losses.cli.arguments import new_parser
from det_losses.compare.tables import table

_SHARED = ("reduction", "loss_weight")


def main(argv: list[str] | None = None) -> int:
    """Print name, kind, space or activation, paper and defaults of each loss as a table."""
    parser = new_parser(
        "list_losses",
        "Show every registered loss. A box loss lives on decoded boxes or on encoded deltas; "
        "a classification loss brings its activation.",
        "  det-losses list_losses --kind box",
    )
    parser.add_argument("--kind", choices=("box", "classification"), help="only these")
    args = parser.parse_args(argv)
    lines = [
        [
            info.name,
            info.kind,
            info.space or info.activation or "-",
            info.paper,
            ", ".join(f"{k}={v!r}" for k, v in info.defaults.items() if k not in _SHARED),
        ]
        for info in list_losses()
        if args.kind in (None, info.kind)
    ]
    print(table(["loss", "kind", "space", "paper", "defaults"], lines))
    print("All of them: reduction='mean', loss_weight=1.0.")
    return 0
