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
from det_losses.losses import Loss
from det_losses.losses.core.build import with_classes
from det_losses.losses.core.expression import parse_expression
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

    A loss without a line of its own that wraps another gets that one's weight.

    Args:
        cfg: the experiment's config; entries of a ``loss_weights`` of its own come first.
        detector: registered name of the detector, such as ``"RetinaNet"``.
        slot: such as ``"loss_bbox"``.
        name: registered name of the loss.
        own: parameters that the loss cannot be built without, if there are such; a loss that it
            wraps is looked for in ``own["loss"]``.

    Returns:
        ``dict(type=name, loss_weight=..., ...)`` and a sentence.
    """
    own = {key: value for key, value in (own or {}).items() if key != "type"}
    if "losses" in own:
        return {"type": name, "loss_weight": 1.0}, "1; its losses have weights of their own"
    for table in (cfg.get("loss_weights") or {}, shipped_table()):
        entries = table.get(detector, {}).get(slot, {})
        if name not in entries and "loss" in own:
            wrapped = {"type": own["loss"]} if isinstance(own["loss"], str) else own["loss"]
            config, source = loss_config(cfg, detector, slot, wrapped["type"], wrapped)
            return {"type": name, "loss_weight": config["loss_weight"]}, source
        entry = entries.get(name) or entries.get("fallback", {}).get(_nature(name, own))
        if entry:
            arguments = {key: value for key, value in entry.items() if key != "source"}
            return {"type": name, **arguments}, entry.get("source", "the config's loss_weights")
    return {"type": name, "loss_weight": 1.0}, f"no table for {slot} of {detector}; 1"


def shipped_table() -> dict[str, Any]:
    """Return the shipped table: detector -> slot -> loss -> weight, parameters and source."""
    file = configs_root() / "_base_" / "loss_weights.py"
    return Config.fromfile(file).loss_weights.to_dict()


def _nature(name: str, own: Mapping[str, Any]) -> str:
    """Return what the fallback goes by: the space of a box loss, the activation, or the kind."""
    loss = build_loss(with_classes({"type": name, **own}, 1))
    return loss.space or loss.activation or loss.kind


def parse_loss(cfg: Mapping[str, Any], detector: str, slot: str, text: str) -> NamedLoss:
    """Return the loss that a text stands for.

    The text is ``"Name"``, ``"Name:key=value,key=value"`` or, for a loss that holds others, an
    expression as in ``"InnerIoU(CIoULoss, ratio=0.7)"``. What it does not say comes from the
    table.

    Raises:
        NotRegisteredError: no loss has that name; the nearest names are given.
        ValueError: it is no loss, its parameters cannot be read, or it has no such parameter.
    """
    name, arguments = _parsed(text)
    cls = find(MODELS, name)
    if not (inspect.isclass(cls) and (issubclass(cls, Loss) or hasattr(cls, "kind"))):
        raise ValueError(f"loss {text!r}: {name} is registered, but it is no loss")
    own = json.loads(json.dumps(arguments))  # as plan.json keeps them: tuples are lists there
    _check_parameters(text, cls, own)
    config, source = loss_config(cfg, detector, slot, name, own)
    if own:
        rest = "" if "loss_weight" in own else f"; weight: {source}"
        source = f"{', '.join(own)}: given by the user{rest}"
    return NamedLoss(text, {**config, **own}, source, tuple(own))


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a loss that is given as text."""
    if "(" in text.partition(":")[0]:
        config = parse_expression(text)
        return config.pop("type"), config
    name, _, arguments = text.partition(":")
    try:
        return name, parse_arguments(arguments)
    except ValueError as error:
        raise ValueError(f"loss {text!r}: after the colon {error}") from None


def _check_parameters(text: str, cls: type, own: Mapping[str, Any]) -> None:
    known = [key for key in inspect.signature(cls).parameters if key != "kwargs"]
    for key in own:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known)}."
            raise ValueError(f"loss {text!r}: {cls.__name__} has no parameter {key!r}. {hint}")
