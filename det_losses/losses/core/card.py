"""The card of a loss: its docstring and class attributes as terminal text and as Markdown."""

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from det_losses.losses.core.build import LossInfo, build_loss, list_losses
from det_losses.losses.core.text import HELD, loss_text
from det_losses.registry import MODELS

SHARED = ("reduction", "loss_weight")
BY_HAND = "## Beside other libraries"
COMMAND = "det-losses list_losses --markdown docs/losses.md"
FORMULA = ".. math::"
_SECTION = re.compile(r"^([A-Z]\w*):$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+): ", re.MULTILINE)
_MATH, _CODE, _ROLE = r":math:`([^`]*)`", r"``([^`]*)``", r":\w+:`~?([^`]*)`"


@dataclass(frozen=True)
class Card:
    """What the class and the docstring of a loss say.

    Texts are in the markup of docstrings. A section that the docstring lacks is left out.

    Attributes:
        info: the loss in the registry.
        place: what kind of loss it is and which inputs it needs.
        wraps: whether it holds other losses.
        body: paragraphs, of which the first is the summary; a formula starts with ``.. math::``.
        parameters: constructor arguments but the shared ones: name -> (default as code, or empty
            if it is required; meaning).
        facts: title -> text, in the order in which they are shown.
        example: an expression that builds the loss.
    """

    info: LossInfo
    place: str
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
    meanings = {name: " ".join(_paragraphs(text)) for name, text in _pairs(parts)}
    signature = inspect.signature(cls).parameters.values()
    distance = "" if cls.monotone_in_distance else "may fall as a box moves away from its target"
    facts = {
        "Use": sections.get("Use", ""),
        "Disjoint boxes": sections.get("Disjoint", ""),
        # Of the class: the instance of a wrapper adds what holds for the loss in its example.
        "Constant in the gradient": ", ".join(cls.constant_in_gradient),
        "Distance": distance,
        "Perfect prediction": "" if loss.zero_at_target else "not 0 at a perfect prediction",
        **{title: sections.get(title, "") for title in ("Shape", "Note", "Published")},
        "Reference": sections.get("Reference", info.paper),
    }
    wraps = any(parameter.name in HELD for parameter in signature)
    return Card(
        info=info,
        place=_place(info, tuple(loss.inputs), wraps),
        wraps=wraps,
        body=tuple(_paragraphs(head)),
        parameters={
            p.name: ("" if p.default is p.empty else repr(p.default), meanings.get(p.name, ""))
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


def _place(info: LossInfo, inputs: Sequence[str], wraps: bool) -> str:
    if wraps:
        return "holds other losses"
    place = {
        "box": f"box loss on {'decoded boxes' if info.space == 'decoded' else 'encoded deltas'}",
        "classification": f"classification loss, {info.activation} by default",
        "distribution": "loss of the distribution of the distance to a side",
    }[info.kind]
    needed = ", ".join(f"``{name}``" for name in inputs)
    return f"{place}; needs the input {needed}" if needed else place


def card_text(card: Card) -> str:
    """Return a card to read in a terminal; formulas stay LaTeX."""
    parts = [_wrap(f"{card.info.name}: {card.place}")]
    for paragraph in card.body:
        formula = paragraph.startswith(FORMULA)
        parts.append(_wrap(paragraph.removeprefix(FORMULA).strip(), "    " if formula else ""))
    parameters = [_wrap(text, "  ", "      ") for text in _parameters(card)]
    parts.append("\n".join(["Parameters", *parameters, f"  {', '.join(SHARED)}: as every loss"]))
    parts += [f"{title}\n{_wrap(text, '  ')}" for title, text in card.facts.items()]
    return "\n\n".join([*parts, f"Example\n  {card.example}"])


def _parameters(card: Card, quote: str = "") -> Iterator[str]:
    for name, (default, meaning) in card.parameters.items():
        shown = f"{quote}{default}{quote}" if default else "required"
        yield f"{quote}{name}{quote} ({shown}): {meaning}"


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
    """Return docs/losses.md: contents, cards, and the hand-written part at the end of ``old``."""
    start = old.find(f"{BY_HAND}\n")
    by_hand = old[start:] if start >= 0 else ""
    groups = {title: [card for card in cards if _group(card) == title] for title in _GROUPS}
    groups = {title: group for title, group in groups.items() if group}
    contents = [
        f"- {_link(title)}: {', '.join(_link(card.info.name) for card in group)}"
        for title, group in groups.items()
    ]
    if by_hand:
        contents.append(f"- {_link(BY_HAND.removeprefix('## '))}: what was run side by side")
    blocks = [_HEAD, "\n".join(contents)]
    for title, group in groups.items():
        blocks += [f"## {title}", *map(card_markdown, group)]
    return "\n\n".join([*blocks, by_hand]).rstrip("\n") + "\n"


def card_markdown(card: Card) -> str:
    """Return a card as a section of Markdown, with formulas as GitHub shows them."""
    parts = [f"### {card.info.name}"]
    for paragraph in card.body:
        formula = paragraph.removeprefix(FORMULA).strip()
        is_formula = paragraph.startswith(FORMULA)
        parts.append(f"```math\n{formula}\n```" if is_formula else _markdown(paragraph))
    lines = [f"- **Parameter** {_markdown(text)}" for text in _parameters(card, "``")]
    facts = {"Place": card.place, **card.facts}
    lines += [f"- **{title}**: {_markdown(text)}" for title, text in facts.items()]
    lines.append(f"- **Example**: `{card.example}`")
    return "\n\n".join([*parts, "\n".join(lines)])


_GROUPS = (
    "Box losses on decoded boxes",
    "Box losses on encoded deltas",
    "Losses that hold losses",
    "Classification losses",
    "Losses of a side's distribution",
)
_HEAD = f"""# The losses

One card for each loss; `det-losses list_losses NAME` prints one in a terminal. The cards are
generated from the docstrings. After changing one, run

    {COMMAND}

The part from "{BY_HAND.removeprefix("## ")}" on is written by hand and kept. Every loss also takes
`reduction` ("mean", "sum" or "none") and `loss_weight`. Defaults are the paper's unless a card says
otherwise."""


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
    """Return a link to the heading ``title``, with GitHub's fragment."""
    fragment = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    return f"[{title}](#{fragment})"
