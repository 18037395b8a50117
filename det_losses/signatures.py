"""Check settings against the signature that receives them, before the call."""

import contextlib
import inspect
import os
import re
import reprlib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from math import inf, nan
from numbers import Integral, Real
from typing import Any

from det_losses.errors import InputError, InputTypeError, did_you_mean, one_line

# Libraries whose annotations have been checked against the values that they accept.
_ANNOTATED = ("det_losses", "mmengine", "torch", "torchvision")
_EXACT = "det_losses"  # others take 8.0 as a whole number in many places
_TOO_NARROW = ("loss_scale",)  # mmengine's AmpOptimWrapper also takes a number or a dict
_LISTS = (list, tuple, set, frozenset, Sequence, Collection, Iterable)
_COMMA = re.compile(r"\s*(\d+),(\d+)\s*")


def check_call(
    target: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    given: Collection[str] = (),
    also: Iterable[Callable[..., Any]] = (),
    title: str | None = None,
) -> None:
    """Check the names and the types of the arguments of a call.

    A class whose constructor has ``**kwargs`` also takes the arguments of its base class, or those
    that its class method ``further_parameters`` returns. Types are checked for this package,
    mmengine, torch and torchvision only.

    Args:
        target: a class or a function.
        arguments: by name.
        given: names of arguments that the caller adds.
        also: further callables that receive the remaining arguments.
        title: the name of ``target`` in messages.

    Raises:
        InputTypeError: an unknown or a missing argument, or a value of the wrong type. Its ``key``
            is the name of the argument.
    """
    known, is_open = parameters(target)
    for further in also:
        known = {**parameters(further)[0], **known}
        is_open = False
    title = title or getattr(target, "__name__", str(target))
    for key, value in arguments.items():
        if key in known:
            _check_type(target, known[key], value)
        elif not is_open:
            listed = ", ".join(each for each in known if each not in given)
            otherwise = f"Its arguments are {listed}." if listed else "It takes none."
            hint = did_you_mean(key, known, otherwise)
            raise _error(InputTypeError, key, f"{title} has no argument {key!r}. {hint}")
    for key in _required(target):
        if key not in arguments and key not in given:
            raise _error(InputTypeError, key, f"is missing; {title} needs it")


def check_ranges(arguments: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise InputError for a number, or a number of a list, outside of its range.

    Args:
        arguments: by name; values of other types are not checked.
        ranges: the smallest and the largest allowed value by name; no list may be empty.
    """
    for name, (low, high) in ranges.items():
        value = arguments.get(name)
        numbers = value if isinstance(value, (list, tuple)) else [value]
        for number in numbers or [nan]:
            if isinstance(number, Real) and not low <= number <= high:
                expected = f"at least {low}" if high == inf else f"from {low} to {high}"
                raise _error(InputError, name, f"must be {expected}, got {short(value)}")


def short(value: Any) -> str:
    """Return a value as short text for a message."""
    return one_line(reprlib.repr(value), 80)


@cache
def parameters(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the named parameters of a callable, and whether it takes any others.

    Their annotations are evaluated; an annotation that cannot be is empty.
    """
    is_class = inspect.isclass(target)
    found: dict[str, inspect.Parameter] = {}
    further = getattr(target, "further_parameters", None)
    for index, function in enumerate(_constructors(target) if is_class else [target]):
        try:
            signature = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # a builtin
            return found, True
        is_open = any(each.kind is each.VAR_KEYWORD for each in signature)
        if index and further and not is_open:
            break  # a base class that its subclasses call with arguments of their own
        hints = _annotations(function)
        for parameter in list(signature)[1 if is_class else 0 :]:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                annotation = hints.get(parameter.name, parameter.empty)
                found.setdefault(parameter.name, parameter.replace(annotation=annotation))
        if not is_open:
            return found, False
    return (found, True) if further is None else ({**found, **further(), **found}, False)


def _constructors(cls: type) -> list[Callable[..., Any]]:
    """Return the ``__init__`` methods of a class and of its bases, in the order of the calls."""
    bases = [base for base in cls.__mro__ if base is not object]
    own = [vars(base)["__init__"] for base in bases if "__init__" in vars(base)]
    return own or [lambda self: None]


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    function = inspect.unwrap(function)
    found = {}
    for name, text in getattr(function, "__annotations__", {}).items():
        one = types.SimpleNamespace(__annotations__={name: text})
        # Evaluating an annotation raises if only type checkers import a name in it.
        with contextlib.suppress(Exception):
            found |= typing.get_type_hints(one, function.__globals__)
    return found


def _required(target: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments without a default; of a class, of its own constructor."""
    try:
        found = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in found if p.default is p.empty and p.kind in named]


# Types


def _check_type(target: Callable[..., Any], parameter: inspect.Parameter, value: Any) -> None:
    package = (getattr(target, "__module__", None) or "").split(".")[0]
    if package not in _ANNOTATED:
        return
    if parameter.name in _TOO_NARROW:
        return
    default, annotation = parameter.default, parameter.annotation
    if value is None and default is None:
        return
    if annotation is parameter.empty:
        # A number may be a list of numbers: torchvision's min_size is 800 or a tuple, for example.
        kind = type(default)
        if kind in (int, float):
            kind = float | Sequence[float]
        if isinstance(default, Real) and (value == [] or not _fits(value, kind)):
            raise _type_error(parameter.name, value, _words(type(default)))
    elif not _fits(value, annotation, exact=package == _EXACT):
        raise _type_error(parameter.name, value, _words(annotation))


def _type_error(name: str, value: Any, expected: str) -> Exception:
    text = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    comma = _COMMA.fullmatch(text) if "number" in expected else None
    hint = f"; write {comma[1]}.{comma[2]}" if comma else ""
    return _error(InputTypeError, name, f"must be {expected}, got {short(value)}{hint}")


def _error(kind: type[InputError | InputTypeError], key: str, message: str) -> Exception:
    error = kind(message)
    error.key = key
    return error


def _is_a(annotation: Any, *kinds: type) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, kinds)


def _fits(value: Any, annotation: Any, exact: bool = False) -> bool:
    """Return False if a value certainly has another type than the annotation states.

    Args:
        value: the value.
        annotation: the type.
        exact: whether 8.0 is not a whole number.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each, exact) for each in args)
    if origin is typing.Literal:
        return value in args
    kind = origin or annotation
    if kind is bool:
        return isinstance(value, Integral) and value in (0, 1)
    if kind in (int, float):
        number = isinstance(value, Real) and not isinstance(value, bool) and value == value
        if number and kind is int:
            return isinstance(value, Integral) or (
                not exact and abs(value) < inf and value == int(value)
            )
        return number
    if kind is type(None):
        return value is None
    if kind is str or _is_a(kind, os.PathLike):
        return isinstance(value, (str, os.PathLike))
    if _is_a(kind, Mapping):
        return value is not None and not isinstance(value, (str, Real, list, tuple))
    if kind in _LISTS:
        return _fits_list(value, kind, args, exact)
    # A tensor, a module, a function: a config has none of them as text or number. Any other class
    # may be built from either.
    return not (_is_tensor(kind) and isinstance(value, str))


def _fits_list(value: Any, kind: type, args: tuple[Any, ...], exact: bool) -> bool:
    if value is None or isinstance(value, (str, Real, Mapping)):
        return False
    items = value if isinstance(value, (list, tuple)) else ()
    if kind is tuple and args and Ellipsis not in args:
        pairs = zip(items, args, strict=False)
        return len(items) == len(args) and all(_fits(*pair, exact) for pair in pairs)
    return all(_fits(item, args[0], exact) for item in items) if args else True


def _is_tensor(kind: Any) -> bool:
    return inspect.isclass(kind) and (kind.__module__, kind.__name__) == ("torch", "Tensor")


def _plural(words: str) -> str:
    noun, of, rest = words.removeprefix("a ").partition(" of ")
    return " or ".join(f"{each.removeprefix('a ')}s" for each in noun.split(" or ")) + of + rest


def _words(annotation: Any) -> str:
    """Return an annotation in words: ``a whole number or None``."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = [_words(each) for each in args if not _is_tensor(each)]
        return " or ".join(dict.fromkeys(parts))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, args))
    kind = origin or annotation
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if kind in words:
        return words[kind]
    if kind is type(None):
        return "None"
    if _is_a(kind, os.PathLike):
        return "a path"
    if _is_a(kind, Mapping):
        return "a dict"
    if kind in _LISTS:
        count = f"{len(args)} " if kind is tuple and Ellipsis not in args else ""
        return f"a list of {count}{_plural(_words(args[0]))}" if args else "a list"
    return getattr(kind, "__name__", str(kind))
