"""The table of weights that a comparison prints before it starts."""

from typing import Any

from det_losses.losses.core.text import loss_text
from det_losses.report.markdown import table


def weight_table(meta: dict[str, Any]) -> str:
    """Return the table of what each variant was configured with, and from where."""
    lines = [
        [label, key.removeprefix("model."), *_parameters(value), variant["source"]]
        for label, variant in meta["variants"].items()
        for key, value in (variant["changes"] or {"-": None}).items()
    ]
    return table(["variant", "changes", "loss_weight", "loss and parameters", "source"], lines)


def _parameters(value: Any) -> list[str]:
    if not isinstance(value, dict) or "type" not in value:
        return ["", "" if value is None else str(value)]
    rest = {key: inner for key, inner in value.items() if key != "loss_weight"}
    return [f"{value.get('loss_weight', 1.0):.4g}", loss_text(rest)]
