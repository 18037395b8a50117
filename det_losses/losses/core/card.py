"""The card of a loss: its docstring and class attributes as terminal text and as Markdown."""

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from det_losses.losses.core.build import LossInfo, build_loss, list_losses
from det_losses.losses.core.text import LOSS_ARGUMENTS, loss_text
from det_losses.registry import MODELS

SHARED = ("reduction", "loss_weight")
BY_HAND = "## Comparison with other libraries"
COMMAND = "det-losses list_losses --markdown docs/losses.md"
FORMULA = ".. math::"
_SECTION = re.compile(r"^([A-Z]\w*):$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+): ", re.MULTILINE)
_MATH, _CODE, _ROLE = r":math:`([^`]*)`", r"``([^`]*)``", r":\w+:`~?([^`]*)`"


@dataclass(frozen=True)
class Card:
    """The documentation of a loss, from its class and docstring.

    Texts are in docstring markup. Missing sections are omitted.

    Attributes:
        info: the loss in the registry.
        kind: the kind of loss, and the inputs it needs.
        wraps: whether it wraps or combines other losses.
        body: paragraphs, of which the first is the summary; a formula starts with ``.. math::``.
        parameters: constructor arguments except the shared ones: name -> (default as code, empty if
            required; description).
        facts: title -> text, in display order.
        example: an expression that builds the loss.
    """

    info: LossInfo
    kind: str
    wraps: bool
    body: tuple[str, ...]
    parameters: Mapping[str, tuple[str, str]]
    facts: Mapping[str, str]
    example: str


def loss_cards() -> list[Card]:
    """Return the card of every registered loss, in the order of :func:`list_losses`."""
    return [loss_card(info) for info in list_losses()]


def loss_card(info: LossInfo) -> Card:
    """Return the card of one loss of :func:`list_losses`."""
    cls, loss = MODELS.module_dict[info.name], build_loss(info.config)
    head, *parts = _SECTION.split(inspect.getdoc(cls) or "")
    sections = {title: inspect.cleandoc(text) for title, text in _pairs(parts)}
    _, *parts = _ARGUMENT.split(sections.get("Args", ""))
    descriptions = {name: " ".join(_paragraphs(text)) for name, text in _pairs(parts)}
    signature = inspect.signature(cls).parameters.values()
    distance = "" if cls.monotone_in_distance else "may fall as a box moves away from its target"
    facts = {
        "Use": sections.get("Use", ""),
        "Disjoint boxes": sections.get("Disjoint", ""),
        # Of the class: a wrapper's instance also lists those of the loss in its example.
        "Constant in the gradient": ", ".join(cls.constant_in_gradient),
        "Distance": distance,
        "Perfect prediction": "" if loss.zero_at_target else "not 0 at a perfect prediction",
        **{title: sections.get(title, "") for title in ("Shape", "Note", "Published")},
        "Reference": sections.get("Reference", info.paper),
    }
    wraps = any(parameter.name in LOSS_ARGUMENTS for parameter in signature)
    return Card(
        info=info,
        kind=_kind(info, tuple(loss.inputs), wraps),
        wraps=wraps,
        body=tuple(_paragraphs(head)),
        parameters={
            p.name: ("" if p.default is p.empty else repr(p.default), descriptions.get(p.name, ""))
            for p in signature
            if p.name not in SHARED
        },
        facts={title: " ".join(_paragraphs(text)) for title, text in facts.items() if text},
        example=loss_text(info.config),
    )


def _pairs(parts: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(parts[::2], parts[1::2], strict=True)


def _paragraphs(text: str) -> list[str]:
    """Split at empty lines and join the lines of each paragraph."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]


def _kind(info: LossInfo, inputs: Sequence[str], wraps: bool) -> str:
    if wraps:
        return "wraps or combines other losses"
    kind = {
        "box": f"box loss on {'decoded boxes' if info.space == 'decoded' else 'encoded deltas'}",
        "classification": f"classification loss, {info.activation} by default",
        "distribution": "loss of a distribution over the distance to a box side",
    }[info.kind]
    needed = ", ".join(f"``{name}``" for name in inputs)
    return f"{kind}; needs the input {needed}" if needed else kind


def card_text(card: Card) -> str:
    """Return a card as terminal text; formulas stay LaTeX."""
    parts = [_wrap(f"{card.info.name}: {card.kind}")]
    for paragraph in card.body:
        formula = paragraph.startswith(FORMULA)
        parts.append(_wrap(paragraph.removeprefix(FORMULA).strip(), "    " if formula else ""))
    parameters = [_wrap(text, "  ", "      ") for text in _parameters(card)]
    shared = f"  {', '.join(SHARED)}: as for every loss"
    parts.append("\n".join(["Parameters", *parameters, shared]))
    parts += [f"{title}\n{_wrap(text, '  ')}" for title, text in card.facts.items()]
    return "\n\n".join([*parts, f"Example\n  {card.example}"])


def _parameters(card: Card, quote: str = "") -> Iterator[str]:
    for name, (default, description) in card.parameters.items():
        shown = f"{quote}{default}{quote}" if default else "required"
        yield f"{quote}{name}{quote} ({shown}): {description}"


def _wrap(text: str, indent: str = "", later: str | None = None) -> str:
    return textwrap.fill(
        re.sub(_ROLE, r"\1", re.sub(_CODE, r"\1", text)),
        100,
        initial_indent=indent,
        subsequent_indent=indent if later is None else later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def cards_markdown(cards: Sequence[Card], old: str = "") -> str:
    """Return docs/losses.md: contents, cards, and the hand-written part of ``old``."""
    start = old.find(f"{BY_HAND}\n")
    by_hand = old[start:] if start >= 0 else ""
    groups = {title: [card for card in cards if _group(card) == title] for title in _GROUPS}
    groups = {title: group for title, group in groups.items() if group}
    contents = [
        f"- {_link(title)}: {', '.join(_link(card.info.name) for card in group)}"
        for title, group in groups.items()
    ]
    if by_hand:
        contents.append(f"- {_link(BY_HAND.removeprefix('## '))}: results for the same inputs")
    blocks = [_HEAD, "\n".join(contents)]
    for title, group in groups.items():
        blocks += [f"## {title}", *map(card_markdown, group)]
    return "\n\n".join([*blocks, by_hand]).rstrip("\n") + "\n"


def card_markdown(card: Card) -> str:
    """Return a card as a Markdown section, with formulas in GitHub's syntax."""
    parts = [f"### {card.info.name}"]
    for paragraph in card.body:
        formula = paragraph.removeprefix(FORMULA).strip()
        is_formula = paragraph.startswith(FORMULA)
        parts.append(f"```math\n{formula}\n```" if is_formula else _markdown(paragraph))
    lines = [f"- **Parameter** {_markdown(text)}" for text in _parameters(card, "``")]
    facts = {"Kind": card.kind, **card.facts}
    lines += [f"- **{title}**: {_markdown(text)}" for title, text in facts.items()]
    lines.append(f"- **Example**: `{card.example}`")
    return "\n\n".join([*parts, "\n".join(lines)])


_GROUPS = (
    "Box losses on decoded boxes",
    "Box losses on encoded deltas",
    "Wrappers and composites",
    "Classification losses",
    "Distribution losses",
)
_HEAD = f"""# The losses

One card for each loss; `det-losses list_losses NAME` prints one in a terminal. The cards are
generated from the docstrings. After changing one, run

    {COMMAND}

The part from "{BY_HAND.removeprefix("## ")}" on is written by hand and is preserved. Every loss
also takes `reduction` ("mean", "sum" or "none") and `loss_weight`. Defaults are the paper's unless
a card says otherwise."""


def _group(card: Card) -> str:
    if card.wraps:
        return _GROUPS[2]
    if card.info.kind == "box":
        return _GROUPS[0] if card.info.space == "decoded" else _GROUPS[1]
    return _GROUPS[3] if card.info.kind == "classification" else _GROUPS[4]


def _markdown(text: str) -> str:
    text = re.sub(_MATH, r"$`\1`$", text)
    return re.sub(_ROLE, r"`\1`", re.sub(_CODE, r"`\1`", text))


def _link(title: str) -> str:
    """Return a link to the heading ``title`` by GitHub's fragment."""
    fragment = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    return f"[{title}](#{fragment})"
