"""Losses as text: ``InnerIoU(FocalIoU(CIoULoss), ratio=0.75)`` stands for its config."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

# A loss that holds one takes it first; one that holds several takes them first.
HELD = ("loss", "losses")


def parse_expression(text: str) -> dict[str, Any]:
    """Return the config that an expression stands for.

    A name is a type, a call gives it arguments. What stands in a call without a name is the loss
    that it holds, ``loss``; of SumLoss and ProductLoss, whose names alone say so, ``losses``.

    Args:
        text: such as ``"GIoULoss"``, ``"mmdet.GIoULoss"`` or ``"SumLoss(L1Loss, GIoULoss)"``.

    Raises:
        ValueError: it is no such expression.

    Example:
        >>> parse_expression("InnerIoU(CIoULoss, ratio=0.7)")
        {'type': 'InnerIoU', 'loss': {'type': 'CIoULoss'}, 'ratio': 0.7}
    """
    try:
        return _config(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(
            f"loss {text!r}: {reason}; expected a name, or a call as in "
            "'InnerIoU(CIoULoss, ratio=0.7)'"
        ) from None


def expression(loss: str | Mapping[str, Any]) -> str:
    """Return the text of a config, the opposite of :func:`parse_expression`.

    Example:
        >>> expression(dict(type="InnerIoU", ratio=0.7, loss=dict(type="CIoULoss")))
        'InnerIoU(CIoULoss, ratio=0.7)'
    """
    if isinstance(loss, str):
        return loss
    held = [loss["loss"]] if "loss" in loss else list(loss.get("losses", ()))
    parts = [expression(each) for each in held]
    parts += [f"{k}={v!r}" for k, v in loss.items() if k != "type" and k not in HELD]
    return f"{loss['type']}({', '.join(parts)})" if parts else str(loss["type"])


def _config(node: ast.expr) -> dict[str, Any]:
    if not isinstance(node, ast.Call):
        return {"type": _name(node)}
    config: dict[str, Any] = {"type": _name(node.func)}
    held = _held(node.args)
    if held:
        several = len(held) > 1 or config["type"].rpartition(".")[2] in ("SumLoss", "ProductLoss")
        config |= {"losses": held} if several else {"loss": held[0]}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in config:
            raise ValueError("an argument is given twice or has no name")
        config[keyword.arg] = _value(keyword.value)
    return config


def _held(arguments: Sequence[ast.expr]) -> list[dict[str, Any]]:
    if len(arguments) == 1 and isinstance(arguments[0], (ast.List, ast.Tuple)):
        arguments = arguments[0].elts
    return [_config(argument) for argument in arguments]


def _value(node: ast.expr) -> Any:
    """A literal, or a loss or a list of losses."""
    if isinstance(node, (ast.Name, ast.Attribute, ast.Call)):
        return _config(node)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(each) for each in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"{ast.unparse(node)!r} is neither a value nor a loss") from None


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError(f"{ast.unparse(node)!r} is no name of a loss")
