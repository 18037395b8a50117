"""From a name or a config to a loss, and the list of the losses that there are."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import nn

from det_losses.losses.core.base import Loss
from det_losses.losses.core.expression import parse_expression
from det_losses.registry import MODELS, find


@dataclass(frozen=True)
class LossInfo:
    """What the registry knows of a loss.

    Attributes:
        name: its ``type`` in a config.
        kind: ``"box"``, ``"classification"`` or ``"distribution"``.
        space: of a box loss, ``"decoded"`` or ``"delta"``.
        activation: of a classification loss, ``"sigmoid"`` or ``"softmax"`` by default.
        paper: short citation.
        defaults: its constructor's defaults.
        config: a config that builds it: its name, and arguments where it needs some.
    """

    name: str
    kind: str
    space: str | None
    activation: str | None
    paper: str
    defaults: dict[str, Any]
    config: dict[str, Any]


def build_loss(loss: str | Mapping[str, Any] | nn.Module, /, **kwargs: Any) -> Loss:
    """Build a loss from its name or config.

    A bare ``type`` is a loss of this package whatever mmengine's default scope is; a prefix, as
    in ``"mmdet.GIoULoss"``, names another. A loss that holds losses passes their configs through
    this function too.

    Args:
        loss: a name, an expression such as ``"InnerIoU(CIoULoss, ratio=0.7)"``, a config with
            ``type``, or a module, which is returned as it is.
        **kwargs: constructor arguments; they replace those of the config.

    Raises:
        NotRegisteredError: no such loss; the nearest names are suggested.
        TypeError: an argument that the loss does not take, its own are listed; or no number where
            one is needed.
        ValueError: the config has no type.

    Example:
        >>> build_loss("GIoULoss", loss_weight=2.0)
        GIoULoss(eps=1e-07, reduction='mean', loss_weight=2.0)
        >>> build_loss(dict(type="SmoothL1Loss", beta=0.1))
        SmoothL1Loss(beta=0.1, reduction='mean', loss_weight=1.0)
    """
    if isinstance(loss, nn.Module):
        if kwargs:
            raise TypeError(f"{type(loss).__name__} is built already; got {', '.join(kwargs)} too")
        return loss
    if isinstance(loss, str):
        loss = parse_expression(loss)
    if not isinstance(loss, Mapping):
        raise TypeError(f"a loss is a name, a dict or a module, got {loss!r}")
    arguments = {**dict(loss.items()), **kwargs}
    if "type" not in arguments:
        raise ValueError(f"a loss config needs a type, as in dict(type='GIoULoss'), got {loss!r}")
    kind = arguments.pop("type")
    cls = find(MODELS, kind) if isinstance(kind, str) else kind
    _check_arguments(cls, arguments)
    return cls(**arguments)


def with_classes(
    loss: str | Mapping[str, Any] | nn.Module, num_classes: int
) -> str | Mapping[str, Any] | nn.Module:
    """Return a loss's config with ``num_classes`` where a class needs it and the config lacks it.

    Args:
        loss: as :func:`build_loss` takes it; losses that it holds are completed too.
        num_classes: what the place of the loss tells apart, without background.

    Raises:
        NotRegisteredError: no such loss; the nearest names are suggested.
    """
    if isinstance(loss, nn.Module):
        return loss
    config = parse_expression(loss) if isinstance(loss, str) else dict(loss.items())
    cls = config.get("type")
    cls = find(MODELS, cls) if isinstance(cls, str) else cls
    parameter = inspect.signature(cls).parameters.get("num_classes") if cls else None
    if parameter is not None and parameter.default is parameter.empty:
        config.setdefault("num_classes", num_classes)
    if "loss" in config:
        config["loss"] = with_classes(config["loss"], num_classes)
    if "losses" in config:
        config["losses"] = [with_classes(each, num_classes) for each in config["losses"]]
    return config


def _check_arguments(cls: type, arguments: Mapping[str, Any]) -> None:
    signature = inspect.signature(cls)
    for name, value in arguments.items():
        parameter = signature.parameters.get(name)
        if parameter is None or type(parameter.default) is not float:
            continue
        optional = value is None and "None" in str(parameter.annotation)
        if not optional and not (isinstance(value, Real) and math.isfinite(value)):
            raise TypeError(f"{cls.__name__}: {name} must be a finite number, got {value!r}")
    try:
        signature.bind(**arguments)
    except TypeError as error:
        refused = getattr(cls, "refused", {})
        reasons = "".join(f" {n}: {refused[n]}." for n in arguments if n in refused)
        own = (str(p.replace(annotation=p.empty)) for p in signature.parameters.values())
        raise TypeError(
            f"{cls.__name__}: {error}.{reasons} Its arguments are {', '.join(own)}"
        ) from None


def list_losses() -> list[LossInfo]:
    """List the registered losses: box losses by space, then classification losses, by name."""
    found = [
        _info(name, cls)
        for name, cls in MODELS.module_dict.items()
        if inspect.isclass(cls) and issubclass(cls, Loss)
    ]
    return sorted(found, key=lambda info: (info.kind, info.space or "", info.name))


def _info(name: str, cls: type[Loss]) -> LossInfo:
    parameters = inspect.signature(cls).parameters.values()
    loss = cls(**cls.example)
    return LossInfo(
        name=name,
        kind=loss.kind,
        space=getattr(loss, "space", None),
        activation=getattr(loss, "activation", None),
        paper=loss.paper,
        defaults={p.name: p.default for p in parameters if p.default is not p.empty},
        config={"type": name, **cls.example},
    )
