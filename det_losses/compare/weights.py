"""Which configuration a loss gets in a slot: the table of ``configs/_base_/loss_weights.py``."""

import difflib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from det_losses import build_loss
from det_losses.compare.values import parse_arguments
from det_losses.paths import configs_root
from det_losses.registry import MODELS, find


@dataclass(frozen=True)
class NamedLoss:
    """A loss of a comparison.

    Attributes:
        label: what tables call it: the text that the user gave.
        config: its configuration, ready for the model.
        source: where weight and parameters come from.
        given: the parameters that the text itself gave.
    """

    label: str
    config: dict[str, Any]
    source: str
    given: tuple[str, ...] = ()


def loss_config(
    cfg: Mapping[str, Any],
    detector: str,
    slot: str,
    name: str,
    own: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Return the configuration of a loss in a slot of a detector, and its source.

    Args:
        cfg: the experiment's config; entries of a ``loss_weights`` of its own come first.
        detector: registered name of the detector, such as ``"RetinaNet"``.
        slot: such as ``"loss_bbox"``.
        name: registered name of the loss.
        own: parameters that the loss cannot be built without, if there are such.

    Returns:
        ``dict(type=name, loss_weight=..., ...)`` and a sentence.
    """
    for table in (cfg.get("loss_weights") or {}, shipped_table()):
        entries = table.get(detector, {}).get(slot, {})
        entry = entries.get(name) or entries.get("fallback", {}).get(_nature(name, own or {}))
        if entry:
            arguments = {key: value for key, value in entry.items() if key != "source"}
            return {"type": name, **arguments}, entry.get("source", "the config's loss_weights")
    return {"type": name, "loss_weight": 1.0}, f"no table for {slot} of {detector}; 1"


def shipped_table() -> dict[str, Any]:
    """Return the shipped table: detector -> slot -> loss -> weight, parameters and source."""
    file = configs_root() / "_base_" / "loss_weights.py"
    return Config.fromfile(file).loss_weights.to_dict()


def _nature(name: str, own: Mapping[str, Any]) -> str:
    """Return what the fallback goes by: the space of a box loss, the activation of another."""
    loss = build_loss({"type": name, **own})
    return loss.space if loss.kind == "box" else loss.activation


def parse_loss(cfg: Mapping[str, Any], detector: str, slot: str, text: str) -> NamedLoss:
    """Return the loss that ``"Name"`` or ``"Name:key=value,key=value"`` stands for.

    What the text does not say comes from the table.

    Raises:
        NotRegisteredError: no loss has that name; the nearest names are given.
        ValueError: it is no loss, its parameters cannot be read, or it has no such parameter.
    """
    name, _, arguments = text.partition(":")
    cls = find(MODELS, name)
    if getattr(cls, "kind", None) not in ("box", "classification"):
        raise ValueError(f"loss {text!r}: {name} is registered, but it is no loss")
    try:
        # Through JSON, as plan.json keeps them: a tuple would differ from the list read back.
        own = json.loads(json.dumps(parse_arguments(arguments)))
    except ValueError as error:
        raise ValueError(f"loss {text!r}: after the colon {error}") from None
    _check_parameters(text, cls, own)
    config, source = loss_config(cfg, detector, slot, name, own)
    if own:
        rest = "" if "loss_weight" in own else f"; weight: {source}"
        source = f"{', '.join(own)}: given by the user{rest}"
    return NamedLoss(text, {**config, **own}, source, tuple(own))


def _check_parameters(text: str, cls: type, own: Mapping[str, Any]) -> None:
    known = [key for key in inspect.signature(cls).parameters if key != "kwargs"]
    for key in own:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known)}."
            raise ValueError(f"loss {text!r}: {cls.__name__} has no parameter {key!r}. {hint}")
