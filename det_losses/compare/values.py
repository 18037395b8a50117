"""Values as a user types them on a command line: ``beta=0.5``, ``reduction=mean``, ``a=[1,2]``."""

import ast
from typing import Any

_WORDS = {"true": True, "false": False, "none": None}


def parse_value(text: str) -> Any:
    """Return the Python value that ``text`` writes, or the text itself if it writes none.

    >>> [parse_value(text) for text in ("1e-3", "[1, a]", "true", "data/x.json")]
    [0.001, [1, 'a'], True, 'data/x.json']
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ArithmeticError):
        return text


def parse_arguments(text: str) -> dict[str, Any]:
    """Return the arguments of ``key=value,key=value``.

    >>> parse_arguments("beta=0.5,loss=dict(type=GIoULoss, eps=1e-6)")
    {'beta': 0.5, 'loss': {'type': 'GIoULoss', 'eps': 1e-06}}

    Raises:
        ValueError: ``text`` is not of that form.
    """
    try:
        call = ast.parse(f"dict({text})", mode="eval").body
        return _value(call)
    except (SyntaxError, ValueError, TypeError, ArithmeticError):
        raise ValueError(f"expected key=value,key=value, got {text!r}") from None


def split_arguments(text: str, what: str) -> list[tuple[str, str]]:
    """Split ``key=value,key=value`` at the commas that no bracket or quote encloses.

    >>> split_arguments("model.loss=dict(a=1, b=2),lr=0.1", "")
    [('model.loss', 'dict(a=1, b=2)'), ('lr', '0.1')]
    >>> split_arguments("loss_bbox=SmoothL1Loss:beta=0.5", "")
    [('loss_bbox', 'SmoothL1Loss:beta=0.5')]

    Raises:
        ValueError: a part has no ``=``, or a key comes twice; ``what`` begins the message.
    """
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        depth += (sign in "([{") - (sign in ")]}") if not quote else 0
        if sign == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    pairs = [part.strip().partition("=") for part in parts if part.strip()]
    keys = [key for key, _, _ in pairs]
    for key, equals, _ in pairs:
        if not equals or not key or keys.count(key) > 1:
            raise ValueError(f"{what}: expected KEY=VALUE,KEY=VALUE with each key once")
    return [(key.strip(), value.strip()) for key, _, value in pairs]


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            names = [keyword.arg for keyword in keywords]
            if None in names or len(set(names)) < len(names):
                raise ValueError("a key twice, or **")
            return {keyword.arg: _value(keyword.value) for keyword in keywords}
        case ast.Name(id=name):
            return _WORDS.get(name.lower(), name)
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Dict(keys=keys, values=values):
            if None in keys:
                raise ValueError("**")
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left) / _value(right)
        case _:
            return ast.literal_eval(node)
