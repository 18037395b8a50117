"""What the class says of itself: its card, and the text that builds it again."""

import inspect
import re

from det_losses.conformance.case import Case, Skipped, expect
from det_losses.losses.core.build import build_loss

SECTIONS = ("Args", "Use", "Shape", "Raises", "Reference", "Example")
KINDS = ("box", "classification", "distribution")


def card(case: Case) -> None:
    """The docstring has every section of a card; without them, another package's is passed over."""
    text = inspect.cleandoc(case.cls.__doc__ or "")
    loss = case.build()
    expect(loss.kind in KINDS, f"kind must be one of {', '.join(KINDS)}, got {loss.kind!r}")
    if loss.kind == "box":
        expect(loss.space in ("delta", "decoded"), f"a box loss needs a space, got {loss.space!r}")
    if loss.kind == "classification":
        known = ("sigmoid", "softmax")
        expect(
            loss.activation in known,
            f"a classification loss needs the activation {' or '.join(known)}, "
            f"got {loss.activation!r}",
        )
    expect(getattr(loss, "paper", ""), "paper is empty: give a short citation")
    wanted = [*SECTIONS, "Disjoint"] if loss.space == "decoded" else list(SECTIONS)
    found = re.findall(r"^(\w+):$", text, re.MULTILINE)
    lacking = [name for name in wanted if name not in found]
    if not re.search(r"^\.\. math::", text, re.MULTILINE):
        lacking.insert(0, ".. math")
    lacks = f"the docstring has no {', '.join(f'{name}:' for name in lacking)}"
    if lacking and not case.cls.__module__.startswith("det_losses."):
        raise Skipped(f"{lacks}, so there is no card")
    expect(not lacking, lacks)
    arguments = re.split(r"^Args:$", text, flags=re.MULTILINE)[1]
    arguments = re.split(r"^\w+:$", arguments, flags=re.MULTILINE)[0]
    documented = set(re.findall(r"^    ((?:\w+, )*\w+):", arguments, re.MULTILINE))
    documented = {name for names in documented for name in names.split(", ")}
    undocumented = [n for n in inspect.signature(case.cls).parameters if n not in documented]
    expect(not undocumented, f"Args lacks {', '.join(undocumented)}")


def text(case: Case) -> None:
    """``repr`` and ``params()`` each build the same loss again."""
    loss = case.build()
    names = {type(module).__name__: type(module) for module in loss.modules()}
    again = eval(repr(loss), names)
    expected, got = repr(loss.params()), repr(again.params())
    expect(got == expected, f"repr {loss!r}: expected the arguments {expected}, it builds {got}")
    got = repr(build_loss({"type": case.cls, **loss.params()}).params())
    expect(got == expected, f"params(): expected the arguments {expected}, they build {got}")
