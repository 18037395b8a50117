"""What is compared: variants, each a label and the config keys that it changes."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmengine.config import Config, ConfigDict

from det_losses.compare.weights import NamedLoss, parse_loss
from det_losses.losses.core.text import parse_value, split_arguments
from det_losses.models.slots import Slot
from det_losses.registry import MODELS, find


@dataclass(frozen=True)
class Variant:
    """One side of a comparison.

    Attributes:
        label: what tables call it.
        changes: dotted config key -> value that replaces the one there.
        source: where loss weight and parameters come from.
        factors: slot -> what a two-factor table calls it.
        weight: how the loss weight was chosen (``how``: published, given, swept, matched), its
            ``multiple``, and the gradient norms of a matching.
    """

    label: str
    changes: dict[str, Any]
    source: str = ""
    factors: dict[str, str] = field(default_factory=dict)
    weight: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_loss(cls, component: str, loss: NamedLoss) -> "Variant":
        """Return the variant that has this loss in that slot."""
        how = "given" if "loss_weight" in loss.given else "published"
        return cls(
            loss.label,
            {f"model.{component}": loss.config},
            loss.source,
            {component: loss.label},
            {"how": how, "multiple": 1.0},
        )

    def loss(self, component: str) -> dict[str, Any]:
        """Return the configuration of the loss in that slot."""
        return self.changes[f"model.{component}"]

    def with_weight(self, component: str, value: float, source: str, **how: Any) -> "Variant":
        """Return this variant with another ``loss_weight`` in that slot."""
        key = f"model.{component}"
        changes = {**self.changes, key: {**self.changes[key], "loss_weight": value}}
        weight = {**self.weight, **how}
        return replace(self, changes=changes, source=source, weight=weight)

    def apply(self, cfg: Config) -> Config:
        """Return a copy of the config with the changes made."""
        own = copy.deepcopy(cfg)
        for key, value in self.changes.items():
            set_key(own, key, value)
        return own


def crossed(first: Sequence[Variant], second: Sequence[Variant]) -> list[Variant]:
    """Return all pairs of a variant of each list, for a grid of two factors."""
    return [
        Variant(
            f"{a.label} + {b.label}",
            {**a.changes, **b.changes},
            f"{a.label}: {a.source}; {b.label}: {b.source}",
            {**a.factors, **b.factors},
            a.weight,
        )
        for a, b in itertools.product(first, second)
    ]


def swept(variants: Sequence[Variant], component: str, multiples: Sequence[float]) -> list[Variant]:
    """Return each variant with its loss weight times each multiple; 1 keeps its label."""
    found = []
    for variant, multiple in itertools.product(variants, multiples):
        if multiple == 1:
            found.append(variant)
            continue
        weight = variant.loss(component).get("loss_weight", 1.0) * multiple
        labelled = replace(variant, label=f"{variant.label} x{multiple:g}")
        source = f"{multiple:g} times: {variant.source}"
        found.append(
            labelled.with_weight(component, weight, source, how="swept", multiple=multiple)
        )
    return found


def parse_variant(cfg: Config, text: str, components: Sequence[str]) -> Variant:
    """Return the variant that ``"name:key=value,key=value"`` stands for.

    A key is a dotted config key, or a slot of the detector with a loss as ``--losses`` takes it.
    A component that the text does not name stays as the config has it.

    Args:
        cfg: the config of the comparison.
        text: what the user typed.
        components: the slots that other variants change.

    Raises:
        ValueError: no such form, or a key that the config does not have.
    """
    label, _, arguments = text.partition(":")
    if not label.strip():
        raise ValueError(f"--variant {text!r}: expected NAME:KEY=VALUE,KEY=VALUE")
    changes: dict[str, Any] = {}
    for key, value in split_arguments(arguments, f"--variant {text!r}"):
        if key in slots_of(cfg):
            changes[f"model.{key}"] = parse_loss(cfg.model, key, _bare(value)).config
        else:
            _check_key(cfg, key, text)
            changes[key] = parse_value(value)
    for component in components:
        name = f"model.{component}"
        present = cfg.model.get(component)
        if name not in changes and present is not None:
            changes[name] = present.to_dict() if isinstance(present, ConfigDict) else present
    return Variant(
        label.strip(), changes, "given as a whole", {}, {"how": "given", "multiple": 1.0}
    )


def set_key(cfg: Mapping[str, Any], key: str, value: Any) -> None:
    """Replace one entry of a config, in place; a part of the key may be an index of a list."""
    *parents, last = key.split(".")
    inner: Any = cfg
    for part in parents:
        if isinstance(inner, list):
            inner = inner[int(part)]
        else:
            if inner.get(part) is None:
                inner[part] = ConfigDict()
            inner = inner[part]
    value = ConfigDict(value) if isinstance(value, Mapping) else copy.deepcopy(value)
    inner[int(last) if isinstance(inner, list) else last] = value


def slots_of(cfg: Config) -> Mapping[str, Slot]:
    """Return the slots of the config's detector.

    Raises:
        ValueError: it has none.
    """
    slots = getattr(find(MODELS, cfg.model.type), "slots", None)
    if slots is None:
        raise ValueError(f"{cfg.model.type} is no detector with losses to be compared")
    return slots


def _bare(text: str) -> str:
    """Take off the quotes that keep the commas of a loss's own parameters together."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _check_key(cfg: Config, key: str, text: str) -> None:
    inner: Any = cfg
    for part in key.split(".")[:-1]:
        try:
            inner = inner[int(part)] if isinstance(inner, list) else inner[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ValueError(
                f"--variant {text!r}: the config has no {key!r} (there is no {part!r} in it)"
            ) from None
    if not isinstance(inner, (Mapping, list)):
        raise ValueError(f"--variant {text!r}: {key!r} goes into {inner!r}, which has no keys")
