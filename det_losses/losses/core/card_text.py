"""Cards of losses as text for a terminal, and as the Markdown of docs/losses.md."""

import re
import textwrap
from collections.abc import Iterator, Sequence

from det_losses.losses.core.card import Card, Parameter

SHARED = ("reduction", "loss_weight")
BY_HAND = "## Beside other libraries"
COMMAND = "det-losses list_losses --markdown docs/losses.md"
_WIDTH = 100
_MATH, _CODE, _ROLE = r":math:`([^`]*)`", r"``([^`]*)``", r":\w+:`~?([^`]*)`"


def card_text(card: Card) -> str:
    """Return a card to read in a terminal; formulas stay LaTeX."""
    parts = [_wrap(f"{card.name}: {_place(card)}"), _wrap(card.summary)]
    if card.formula:
        parts.append(_wrap(card.formula, "    "))
    parts += [_wrap(paragraph) for paragraph in card.about.split("\n\n") if paragraph]
    own = [_wrap(_parameter(p), "  ", "      ") for p in _own_parameters(card)]
    parts.append("\n".join(["Parameters", *own, "  reduction, loss_weight: as every loss"]))
    parts += [f"{title}\n{_wrap(text, '  ')}" for title, text in _facts(card)]
    return "\n\n".join([*parts, f"Example\n  {card.example}"])


def cards_markdown(cards: Sequence[Card], old: str = "") -> str:
    """Return docs/losses.md: contents, cards, and what stands by hand at the end of ``old``."""
    start = old.find(f"{BY_HAND}\n")
    by_hand = old[start:] if start >= 0 else ""
    found = {title: [card for card in cards if _group(card) == title] for title in _GROUPS}
    groups = {title: group for title, group in found.items() if group}
    contents = [
        f"- {_link(title)}: {', '.join(_link(card.name) for card in group)}"
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
    parts = [f"### {card.name}", _markdown(card.summary)]
    if card.formula:
        parts.append(f"```math\n{card.formula}\n```")
    if card.about:
        parts.append(_markdown(card.about))
    lines = [f"- **Parameter** {_item(_parameter(p, '``'))}" for p in _own_parameters(card)]
    lines += [
        f"- **{title}**: {_item(text)}" for title, text in [("Place", _place(card)), *_facts(card)]
    ]
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

One card for each loss. A terminal shows one with `det-losses list_losses NAME`. The cards are made
from the docstrings; after a change of one, write this file anew with

    {COMMAND}

What stands from "{BY_HAND.removeprefix("## ")}" on is written by hand and stays. Every loss also
takes `reduction` ("mean", "sum" or "none") and `loss_weight`; defaults are the paper's unless a
card says otherwise."""


def _group(card: Card) -> str:
    if card.wraps:
        return _GROUPS[2]
    if card.kind == "box":
        return _GROUPS[0] if card.space == "decoded" else _GROUPS[1]
    return _GROUPS[3] if card.kind == "classification" else _GROUPS[4]


def _place(card: Card) -> str:
    if card.wraps:
        place = "holds other losses"
    elif card.kind == "box":
        place = f"box loss on {'decoded boxes' if card.space == 'decoded' else 'encoded deltas'}"
    elif card.kind == "classification":
        place = f"classification loss, {card.activation} by default"
    else:
        place = "loss of the distribution of a side's distance"
    inputs = ", ".join(f"``{name}``" for name in card.inputs)
    return f"{place}; needs the input {inputs}" if inputs and not card.wraps else place


def _own_parameters(card: Card) -> list[Parameter]:
    return [parameter for parameter in card.parameters if parameter.name not in SHARED]


def _parameter(parameter: Parameter, quote: str = "") -> str:
    default = f"{quote}{parameter.default}{quote}" if parameter.default else "required"
    return f"{quote}{parameter.name}{quote} ({default}): {parameter.text}"


def _facts(card: Card) -> Iterator[tuple[str, str]]:
    """Yield title and text of all that a card has beside formula and parameters."""
    zero = "" if card.zero_at_target else "not 0 at a perfect prediction"
    distance = "" if card.monotone_in_distance else "may fall as a box moves away from its target"
    facts = {
        "Use": card.use,
        "Disjoint boxes": card.disjoint,
        "Constant in the gradient": ", ".join(card.constant_in_gradient),
        "Distance": distance,
        "Perfect prediction": zero,
        "Shape": card.shape,
        "Note": card.note,
        "Published": card.published,
        "Reference": card.reference or card.paper,
    }
    return ((title, text) for title, text in facts.items() if text)


def _wrap(text: str, indent: str = "", later: str | None = None) -> str:
    plain = re.sub(_ROLE, r"\1", re.sub(_CODE, r"\1", text))
    return "\n".join(
        textwrap.fill(
            paragraph,
            _WIDTH,
            initial_indent=indent,
            subsequent_indent=indent if later is None else later,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for paragraph in plain.split("\n\n")
    )


def _markdown(text: str) -> str:
    text = re.sub(_MATH, r"$`\1`$", text)
    return re.sub(_ROLE, r"`\1`", re.sub(_CODE, r"`\1`", text))


def _item(text: str) -> str:
    """Markdown of one list entry: its paragraphs become one."""
    return _markdown(text.replace("\n\n", " "))


def _link(title: str) -> str:
    """A link to the heading ``title``, whose fragment is GitHub's."""
    fragment = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    return f"[{title}](#{fragment})"
