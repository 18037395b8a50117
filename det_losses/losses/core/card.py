"""The card of a loss: what its class and its docstring say, as data."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from det_losses.losses.core.build import LossInfo, build_loss, list_losses
from det_losses.losses.core.text import HELD, loss_text
from det_losses.registry import MODELS

_SECTION = re.compile(r"^([A-Z]\w*):$", re.MULTILINE)
_MATH = re.compile(r"^\.\. math::(.*\n?(?:(?:[ \t].*)?(?:\n|$))*)", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+): ", re.MULTILINE)


@dataclass(frozen=True)
class Parameter:
    """A constructor argument: its name, its default as code (empty if required), what it means."""

    name: str
    default: str
    text: str


@dataclass(frozen=True)
class Card:
    """All that is known of a loss.

    Texts are in the markup of docstrings, paragraphs apart by an empty line; a section that the
    docstring does not have is empty.

    Attributes:
        name: its ``type`` in a config.
        kind: ``"box"``, ``"classification"`` or ``"distribution"``.
        space: of a box loss, ``"decoded"`` or ``"delta"``.
        activation: of a classification loss, ``"sigmoid"`` or ``"softmax"`` by default.
        inputs: names of the tensors that it needs beside pred and target.
        wraps: whether it holds other losses.
        summary: one sentence.
        formula: LaTeX.
        about: what the symbols mean and what follows from the formula.
        parameters: its constructor's arguments.
        use: what it is for.
        shape: shapes of pred, target and the unreduced loss.
        disjoint: what it does on disjoint boxes.
        constant_in_gradient: names of what is detached from the gradient.
        monotone_in_distance: whether it never falls when a box moves away.
        zero_at_target: whether a perfect prediction has loss 0.
        note: differences from other libraries, and limits.
        published: numbers of its paper.
        paper: short citation.
        reference: full citation.
        example: an expression that builds it.
    """

    name: str
    kind: str
    space: str | None
    activation: str | None
    inputs: tuple[str, ...]
    wraps: bool
    summary: str
    formula: str
    about: str
    parameters: tuple[Parameter, ...]
    use: str
    shape: str
    disjoint: str
    constant_in_gradient: tuple[str, ...]
    monotone_in_distance: bool
    zero_at_target: bool
    note: str
    published: str
    paper: str
    reference: str
    example: str


def loss_cards() -> list[Card]:
    """Return the card of every registered loss, in the order of :func:`list_losses`."""
    return [loss_card(info) for info in list_losses()]


def loss_card(info: LossInfo) -> Card:
    """Return the card of one loss of :func:`list_losses`."""
    cls, loss = MODELS.module_dict[info.name], build_loss(info.config)
    sections = dict(_sections(inspect.getdoc(cls) or ""))
    formula, about = _split_formula(sections[""])
    summary, _, about = about.partition("\n\n")
    explained = dict(_arguments(sections.get("Args", "")))
    parameters = tuple(
        Parameter(p.name, _default(p), explained.get(p.name, ""))
        for p in inspect.signature(cls).parameters.values()
    )
    texts = {
        field: _paragraphs(sections.get(field.title(), ""))
        for field in ("use", "shape", "disjoint", "note", "published", "reference")
    }
    return Card(
        name=info.name,
        kind=info.kind,
        space=info.space,
        activation=info.activation,
        inputs=tuple(loss.inputs),
        wraps=any(parameter.name in HELD for parameter in parameters),
        summary=_paragraphs(summary),
        formula=formula,
        about=_paragraphs(about),
        parameters=parameters,
        # A wrapper's instance adds what holds for the loss in the example; the class does not.
        constant_in_gradient=cls.constant_in_gradient,
        monotone_in_distance=cls.monotone_in_distance,
        zero_at_target=loss.zero_at_target,
        paper=info.paper,
        example=loss_text(info.config),
        **texts,
    )


def _sections(doc: str) -> Iterator[tuple[str, str]]:
    """Yield each section's title and its dedented text; the head has an empty title."""
    parts = _SECTION.split(doc)
    yield "", parts[0].strip()
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        yield title, inspect.cleandoc(text)


def _split_formula(head: str) -> tuple[str, str]:
    """Take the first display formula out of the text before the sections."""
    found = _MATH.search(head)
    if found is None:
        return "", head
    rest = head[: found.start()] + head[found.end() :]
    return _paragraphs(found[1].strip()), rest.strip()


def _arguments(text: str) -> Iterator[tuple[str, str]]:
    parts = _ARGUMENT.split(text)
    for name, meaning in zip(parts[1::2], parts[2::2], strict=True):
        yield name, _paragraphs(meaning)


def _paragraphs(text: str) -> str:
    """Join the lines of each paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def _default(parameter: inspect.Parameter) -> str:
    return "" if parameter.default is parameter.empty else repr(parameter.default)
