"""The table of weights that a comparison prints before it starts."""

from collections.abc import Sequence
from typing import Any


def table(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a markdown table whose columns are aligned, to be read as plain text too."""
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in (headers, *lines)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headers))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    )


def weight_table(meta: dict[str, Any]) -> str:
    """Return the table of what each variant was configured with, and from where."""
    lines = [
        [label, key.removeprefix("model."), *_parameters(value), variant["source"]]
        for label, variant in meta["variants"].items()
        for key, value in (variant["changes"] or {"-": None}).items()
    ]
    return table(["variant", "changes", "loss_weight", "other parameters", "source"], lines)


def _parameters(value: Any) -> list[str]:
    if not isinstance(value, dict) or "type" not in value:
        return ["", "" if value is None else str(value)]
    rest = ", ".join(f"{k}={v}" for k, v in value.items() if k != "loss_weight")
    return [f"{value.get('loss_weight', 1.0):.4g}", rest]
