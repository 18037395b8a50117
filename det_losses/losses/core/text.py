"""Losses and values as text: ``InnerIoU(FocalIoU(CIoULoss), ratio=0.75)`` and its config."""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from det_losses.errors import InputError, one_line

# The arguments of wrappers and composites that are losses.
LOSS_ARGUMENTS = ("loss", "losses")
_COMPOSITES = ("SumLoss", "ProductLoss")  # a single unnamed argument is `losses` too
_WORDS = {"true": True, "false": False, "none": None}
_COLON_FORM = re.compile(r"\s*([\w.]+)\s*:(.*)", re.DOTALL)
_HYPHENS = re.compile(r"[A-Za-z]\w*(-\w+)+")
_PARSE_ERRORS = (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError)


def parse_loss(text: str) -> dict[str, Any]:
    """Return the config of a loss given as a name or a call.

    Unnamed arguments are losses: the argument ``loss``, or ``losses`` if there are several and for
    SumLoss and ProductLoss. Other values are read by :func:`parse_value`; a name with parentheses
    is a loss.

    Args:
        text: such as ``"GIoULoss"``, ``"mmdet.GIoULoss"``, ``"SmoothL1Loss(beta=1/9)"`` or
            ``"SumLoss(L1Loss, GIoULoss(loss_weight=2.0))"``.

    Raises:
        InputError: the text has another form.

    Example:
        >>> parse_loss("InnerIoU(CIoULoss, ratio=0.7)")
        {'type': 'InnerIoU', 'loss': {'type': 'CIoULoss'}, 'ratio': 0.7}
        >>> parse_loss("IoULoss(mode=linear)")
        {'type': 'IoULoss', 'mode': 'linear'}
    """
    if _HYPHENS.fullmatch(text.strip()):  # no Python name, but one to suggest another for
        return {"type": text.strip()}
    try:
        return _loss(ast.parse(text.strip(), mode="eval").body)
    except _PARSE_ERRORS as error:
        if colon := _COLON_FORM.fullmatch(text):
            name, arguments = (part.strip() for part in colon.groups())
            form = f"{name}({arguments})" if arguments else name
            raise InputError(f"loss {text!r}: parameters go in parentheses: {form!r}") from None
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise InputError(
            f"loss {one_line(text)!r}: {reason}; expected a name, or a call as in "
            "'InnerIoU(CIoULoss, ratio=0.7)'"
        ) from None


def loss_text(loss: str | Mapping[str, Any]) -> str:
    """Return the text of a config, which :func:`parse_loss` reads back.

    Example:
        >>> loss_text(dict(type="InnerIoU", ratio=0.7, loss=dict(type="CIoULoss")))
        'InnerIoU(CIoULoss, ratio=0.7)'
    """
    if isinstance(loss, str):
        return loss
    name = loss["type"] if isinstance(loss["type"], str) else loss["type"].__name__
    inner = [loss["loss"]] if "loss" in loss else list(loss.get("losses", ()))
    parts = [loss_text(each) for each in inner]
    parts += [f"{k}={v!r}" for k, v in loss.items() if k != "type" and k not in LOSS_ARGUMENTS]
    return f"{name}({', '.join(parts)})" if parts else name


def parse_value(text: str) -> Any:
    """Return the Python value of a literal, or ``text`` itself if it is none.

    Example:
        >>> [parse_value(text) for text in ("1e-3", "[1, a]", "true", "data/x.json", "1/4")]
        [0.001, [1, 'a'], True, 'data/x.json', 0.25]
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except _PARSE_ERRORS:
        return text


def split_arguments(text: str, what: str) -> list[tuple[str, str]]:
    """Split ``key=value,key=value`` at the commas outside brackets and quotes.

    Args:
        text: what the user typed.
        what: the beginning of the error message.

    Raises:
        InputError: a part has no ``=``, or a key is repeated.

    Example:
        >>> split_arguments("loss_bbox=SmoothL1Loss(beta=0.5, loss_weight=2),lr=0.1", "")
        [('loss_bbox', 'SmoothL1Loss(beta=0.5, loss_weight=2)'), ('lr', '0.1')]
    """
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        depth += (char in "([{") - (char in ")]}") if not quote else 0
        if char == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += char
    pairs = [part.strip().partition("=") for part in parts if part.strip()]
    keys = [key.strip() for key, _, _ in pairs]
    for key, (_, equals, _) in zip(keys, pairs, strict=True):
        if not equals or not key or keys.count(key) > 1:
            raise InputError(f"{what}: expected KEY=VALUE,KEY=VALUE with each key once")
    return [(key, value.strip()) for key, (_, _, value) in zip(keys, pairs, strict=True)]


def _loss(node: ast.expr) -> dict[str, Any]:
    if not isinstance(node, ast.Call):
        return {"type": _name(node)}
    config: dict[str, Any] = {"type": _name(node.func)}
    inner = _inner_losses(node.args)
    if inner:
        several = len(inner) > 1 or config["type"].rpartition(".")[2] in _COMPOSITES
        config |= {"losses": inner} if several else {"loss": inner[0]}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in config:
            raise ValueError("an argument is given twice or has no name")
        config[keyword.arg] = _argument(keyword.arg, keyword.value)
    return config


def _inner_losses(arguments: Sequence[ast.expr]) -> list[dict[str, Any]]:
    if len(arguments) == 1 and isinstance(arguments[0], (ast.List, ast.Tuple)):
        arguments = arguments[0].elts
    return [_loss(argument) for argument in arguments]


def _argument(name: str, node: ast.expr) -> Any:
    """Return the value of a loss's argument, which can be a loss itself."""
    if name == "losses" and isinstance(node, (ast.List, ast.Tuple)):
        return [_argument("loss", each) for each in node.elts]
    is_call = isinstance(node, ast.Call) and ast.unparse(node.func) != "dict"
    if is_call or (name == "loss" and isinstance(node, (ast.Name, ast.Attribute))):
        return _loss(node)
    try:
        return _value(node)
    except _PARSE_ERRORS:
        raise ValueError(f"{ast.unparse(node)!r} is neither a value nor a loss") from None


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError(f"{ast.unparse(node)!r} is not the name of a loss")


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            names = [keyword.arg for keyword in keywords]
            if None in names or len(set(names)) < len(names):
                raise ValueError("a key is repeated, or ** is used")
            return {keyword.arg: _value(keyword.value) for keyword in keywords}
        case ast.Name(id=name):
            return _WORDS.get(name.lower(), name)
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Dict(keys=keys, values=values):
            if None in keys:
                raise ValueError("** is used")
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left) / _value(right)
        case _:
            return ast.literal_eval(node)
