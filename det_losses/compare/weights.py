"""A loss of a comparison: its label, and its config with the published setting of its slot."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from det_losses.losses.core import text as grammar
from det_losses.models import published


@dataclass(frozen=True)
class NamedLoss:
    """A loss of a comparison.

    Attributes:
        label: the text that the user gave.
        config: its configuration, complete.
        source: where weight and parameters come from.
        given: the parameters that the text itself gave.
    """

    label: str
    config: dict[str, Any]
    source: str
    given: tuple[str, ...] = ()


def parse_loss(model: Mapping[str, Any], slot: str, text: str) -> NamedLoss:
    """Return the loss that a text stands for in a slot of the detector of that config.

    Raises:
        NotRegisteredError: no loss has that name; the nearest names are given.
        InputError, InputTypeError: not a loss, or its parameters cannot be used.
    """
    given = json.loads(json.dumps(grammar.parse_loss(text)))  # as plan.json keeps it
    config, source = published.complete(published.table_of(model), slot, given)
    return NamedLoss(text, config, source, tuple(key for key in given if key != "type"))
