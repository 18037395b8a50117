"""Arguments are checked against the signature of the call that they are for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest
from torch import Tensor

from det_losses.signatures import check_call, check_ranges, parameters


class Base:
    def __init__(self, base, size=1.0):
        pass


class Derived(Base):
    """Passes unknown arguments to its base class."""

    def __init__(self, own, *, mode="plain", **kwargs):
        pass


class Open:
    def __init__(self, own=1, **kwargs):
        pass


class Adapter:
    """Its subclasses pass unknown arguments to a function."""

    def __init__(self, hidden):
        pass

    @classmethod
    def further_parameters(cls):
        return parameters(function)[0]


class Adapted(Adapter):
    def __init__(self, own, text=3, **kwargs):
        super().__init__(1)


class Further(Adapted):
    def __init__(self, more=1, **kwargs):
        super().__init__(**kwargs)


def function(
    number: float = 1.0,
    whole: int = 1,
    flag: bool = False,
    text: str = "",
    path: str | Path = "",
    optional: Optional[float] = None,  # noqa: UP045  as mmengine writes it
    either: Union[int, Sequence[int]] = 1,  # noqa: UP007
    pair: tuple[float, float] = (0, 1),
    names: Sequence[str] | None = None,
    table: Mapping[str, Any] | None = None,
    choice: Literal["a", "b"] = "a",
    tensor: float | Tensor = 1.0,
    anything: Any = None,
    undeclared=1.5,
):
    pass


def unresolvable(name: "NoSuchName" = 1):  # noqa: F821
    pass


def test_arguments_of_base_classes_are_known():
    assert parameters(Derived) == (parameters(Derived)[0], False)
    assert list(parameters(Derived)[0]) == ["own", "mode", "base", "size"]
    check_call(Derived, dict(own=1, size=2.0))
    with pytest.raises(TypeError, match=r"^sise: Derived has no argument 'sise'. .* 'size'\?$"):
        check_call(Derived, dict(own=1, sise=2.0))


def test_a_class_that_takes_anything_is_not_judged():
    check_call(Open, dict(whatever=1))
    with pytest.raises(TypeError, match="whatever: Open has no argument 'whatever'"):
        check_call(Open, dict(whatever=1), also=[Base])


def test_a_class_may_declare_further_arguments():
    known, is_open = parameters(Further)
    assert not is_open
    assert {"more", "own", "text", "number", "table"} <= set(known)
    assert known["text"].default == 3
    assert "hidden" not in known
    assert list(parameters(Adapter)[0]) == ["hidden"]


def test_a_missing_argument_is_named_unless_the_caller_adds_it():
    with pytest.raises(TypeError, match=r"^own: is missing; Derived needs it$"):
        check_call(Derived, {})
    check_call(Derived, {}, given=("own",))


@pytest.mark.parametrize(
    "arguments",
    [
        dict(number=1), dict(whole=3), dict(flag=1), dict(path=Path("x")), dict(optional=None),
        dict(either=[1, 2]), dict(either=3), dict(pair=[0, 0.5]), dict(names=("a",)),
        dict(table={}), dict(choice="b"), dict(tensor=2), dict(anything="x"), dict(undeclared=[1]),
    ],
)  # fmt: skip
def test_right_types_pass(arguments, monkeypatch):
    monkeypatch.setattr(function, "__module__", "det_losses.example")
    check_call(function, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(number="0,01"), "number: must be a number, got '0,01'; write 0.01"),
        (dict(number=(0, 1)), "number: must be a number, got (0, 1); write 0.1"),
        (dict(number=None), "number: must be a number, got None"),
        (dict(whole=2.5), "whole: must be a whole number, got 2.5"),
        (dict(whole=float("inf")), "whole: must be a whole number, got inf"),
        (dict(flag="maybe"), "flag: must be true or false, got 'maybe'"),
        (dict(text=3), "text: must be text, got 3"),
        (dict(optional="x"), "optional: must be a number or None, got 'x'"),
        (dict(either="x"), "either: must be a whole number or a list of whole numbers"),
        (dict(either=[1, "x"]), "either: must be"),
        (dict(pair=[0, "x"]), "pair: must be a list of 2 numbers"),
        (dict(pair=[0]), "pair: must be a list of 2 numbers, got [0]"),
        (dict(whole=3.0), "whole: must be a whole number, got 3.0"),
        (dict(names="cat"), "names: must be a list of texts or None, got 'cat'"),
        (dict(table=[1]), "table: must be a dict or None, got [1]"),
        (dict(choice="c"), "choice: must be one of 'a', 'b', got 'c'"),
        (dict(tensor="x"), "tensor: must be a number, got 'x'"),
        (dict(undeclared="x"), "undeclared: must be a number, got 'x'"),
        (dict(undeclared=None), "undeclared: must be a number, got None"),
        (dict(undeclared=[]), "undeclared: must be a number, got []"),
        (dict(number=float("nan")), "number: must be a number, got nan"),
        (dict(whole=True), "whole: must be a whole number, got True"),
    ],
)
def test_wrong_types_are_named(arguments, message, monkeypatch):
    monkeypatch.setattr(function, "__module__", "det_losses.example")
    with pytest.raises(TypeError) as raised:
        check_call(function, arguments)
    assert str(raised.value).startswith(message)


def test_a_whole_number_may_be_a_float_in_other_packages(monkeypatch):
    monkeypatch.setattr(function, "__module__", "mmengine.example")
    check_call(function, dict(whole=3.0, either=[1e3]))


def test_types_of_other_packages_and_unknown_types_are_not_judged(monkeypatch):
    check_call(function, dict(number="x"))
    monkeypatch.setattr(unresolvable, "__module__", "det_losses.example")
    check_call(unresolvable, dict(name=[1]))


def test_numbers_outside_of_their_range():
    check_ranges(dict(a=1, b="text", c=[1, 2]), dict(a=(1, 2), b=(1, 2), c=(1, 2), d=(1, 2)))
    for value in (0, 3, [1, 3], float("nan")):
        with pytest.raises(ValueError, match=r"^a: must be from 1 to 2, got "):
            check_ranges(dict(a=value), dict(a=(1, 2)))
    with pytest.raises(ValueError, match=r"^a: must be at least 1, got 0$"):
        check_ranges(dict(a=0), dict(a=(1, float("inf"))))
