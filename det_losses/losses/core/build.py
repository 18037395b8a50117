"""Build a loss from its name or config, and list the registered losses."""

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import nn

from det_losses.errors import InputError, InputTypeError, did_you_mean
from det_losses.losses.core.base import Loss
from det_losses.losses.core.text import loss_text, parse_loss
from det_losses.registry import MODELS, find


@dataclass(frozen=True)
class LossInfo:
    """A registered loss.

    Attributes:
        name: its ``type`` in a config.
        kind: ``"box"``, ``"classification"`` or ``"distribution"``.
        space: of a box loss, ``"decoded"`` or ``"delta"``.
        activation: of a classification loss, ``"sigmoid"`` or ``"softmax"`` by default.
        paper: short citation.
        defaults: the defaults of its constructor arguments.
        config: a config that builds it: its name and the required arguments.
    """

    name: str
    kind: str
    space: str | None
    activation: str | None
    paper: str
    defaults: dict[str, Any]
    config: dict[str, Any]


def build_loss(loss: str | Mapping[str, Any] | nn.Module, /, **kwargs: Any) -> Loss:
    """Build a loss from its name or config, with the defaults of its constructor.

    A ``type`` without a prefix is a loss of this package, whatever mmengine's default scope is; a
    prefix, as in ``"mmdet.GIoULoss"``, names another scope. Wrapped losses are built by this
    function too. In a slot of a detector, ``models.published`` completes the config first.

    Args:
        loss: a name, a call such as ``"InnerIoU(CIoULoss, ratio=0.7)"``, a config with ``type``, or
            a module, which is returned unchanged.
        **kwargs: constructor arguments; they replace those of the config.

    Raises:
        NotRegisteredError: no such loss; the nearest names are suggested.
        InputTypeError: an unknown argument, an argument of the wrong type, or arguments for a loss
            that is already built.
        InputError: an argument out of range, text that cannot be read, or a config without type.

    Example:
        >>> build_loss("GIoULoss", loss_weight=2.0)
        GIoULoss(eps=1e-07, reduction='mean', loss_weight=2.0)
        >>> build_loss(dict(type="SmoothL1Loss", beta=0.1))
        SmoothL1Loss(beta=0.1, reduction='mean', loss_weight=1.0)
    """
    if isinstance(loss, nn.Module):
        if kwargs:
            raise InputTypeError(
                f"{type(loss).__name__} is already built and takes no arguments, got "
                f"{', '.join(kwargs)}"
            )
        return loss
    arguments = {**loss_config(loss), **kwargs}
    cls = loss_class(arguments)
    del arguments["type"]
    check_arguments(cls, arguments)
    try:
        built = cls(**arguments)
    except (ValueError, TypeError) as error:
        kind = InputError if isinstance(error, ValueError) else InputTypeError
        raise kind(_constructor_message(cls, arguments, error)) from error
    if isinstance(built, Loss):
        built.params()  # raises if the class does not store its arguments
    return built


def loss_config(loss: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a loss as a new dict, parsed from text or copied.

    Raises:
        InputTypeError: neither text nor a config, or its ``type`` is neither a name nor a class.
        InputError: text that cannot be read, or a config without ``type``.
    """
    if isinstance(loss, str):
        return parse_loss(loss)
    if not isinstance(loss, Mapping):
        raise InputTypeError(f"a loss is a name, a dict or a module, got {loss!r}")
    config = dict(loss.items())
    if "type" not in config:
        raise InputError(f"a loss config needs a type, as in dict(type='GIoULoss'), got {loss!r}")
    if not isinstance(config["type"], str) and not callable(config["type"]):
        raise InputTypeError(f"the type of a loss must be its name, got {config['type']!r}")
    return config


def loss_class(config: Mapping[str, Any]) -> type:
    """Return the class that a config's ``type`` names.

    Raises:
        NotRegisteredError: no such loss; the nearest names are suggested.
    """
    kind = config["type"]
    return find(MODELS, kind) if isinstance(kind, str) else kind


def with_classes(
    loss: str | Mapping[str, Any] | nn.Module, num_classes: int
) -> str | Mapping[str, Any] | nn.Module:
    """Return a loss's config with ``num_classes`` added where it is required and missing.

    Args:
        loss: as :func:`build_loss` takes it; wrapped losses are completed too.
        num_classes: number of classes in the loss's slot, without background.

    Raises:
        NotRegisteredError: no such loss; the nearest names are suggested.
    """
    if isinstance(loss, nn.Module):
        return loss
    config = loss_config(loss)
    parameter = inspect.signature(loss_class(config)).parameters.get("num_classes")
    if parameter is not None and parameter.default is parameter.empty:
        config.setdefault("num_classes", num_classes)
    if "loss" in config:
        config["loss"] = with_classes(config["loss"], num_classes)
    if isinstance(config.get("losses"), (list, tuple)):
        config["losses"] = [with_classes(each, num_classes) for each in config["losses"]]
    return config


def check_arguments(cls: type, arguments: Mapping[str, Any], *, partial: bool = False) -> None:
    """Check the arguments of a loss before it is built.

    Args:
        cls: the loss's class.
        arguments: by name.
        partial: whether further arguments may follow.

    Raises:
        InputTypeError: an unknown or missing argument, or an argument that must be a number and is
            not.
    """
    signature = inspect.signature(cls)
    for name, value in arguments.items():
        parameter = signature.parameters.get(name)
        if parameter is None or type(parameter.default) is not float:
            continue
        optional = value is None and "None" in str(parameter.annotation)
        if not optional and not (isinstance(value, Real) and math.isfinite(value)):
            raise InputTypeError(f"{cls.__name__}: {name} must be a finite number, got {value!r}")
    try:
        (signature.bind_partial if partial else signature.bind)(**arguments)
    except TypeError as error:
        raise InputTypeError(_argument_message(cls, signature, arguments, error)) from None


def _argument_message(
    cls: type, signature: inspect.Signature, arguments: Mapping[str, Any], error: TypeError
) -> str:
    known = signature.parameters
    refused = getattr(cls, "refused", {})
    hints = "".join(f" {name}: {refused[name]}." for name in arguments if name in refused)
    for name in arguments:
        if name not in known and name not in refused:
            hints += f" {did_you_mean(name, known)}".rstrip()
    signatures = (
        str(parameter.replace(annotation=parameter.empty)) for parameter in known.values()
    )
    return f"{cls.__name__}: {error}.{hints} Its arguments are {', '.join(signatures)}"


def _constructor_message(cls: type, arguments: Mapping[str, Any], error: Exception) -> str:
    """Add the name of the loss and its config to an error that does not name them."""
    text = str(error)
    if re.match(r"\w+: ", text) or text.startswith(cls.__name__):
        return text  # names this loss or a wrapped one already
    if arguments and not any(re.search(rf"\b{name}\b", text) for name in arguments):
        text += f" (in {loss_text({'type': cls, **arguments})})"
    return f"{cls.__name__}: {text}"


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
