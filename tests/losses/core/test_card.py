"""Cards: parsing, display, and the sections that every card of this package must have."""

import inspect
import re

import pytest
import torch

from det_losses import list_losses
from det_losses.losses import IoUFamilyLoss, build_loss
from det_losses.losses.core.card import (
    BY_HAND,
    FORMULA,
    card_markdown,
    card_text,
    cards_markdown,
    loss_card,
    loss_cards,
)
from det_losses.registry import MODELS

CARDS = [
    card
    for card in loss_cards()
    if MODELS.module_dict[card.info.name].__module__.startswith("det_losses.losses.")
]


class BarLoss(IoUFamilyLoss):
    r"""Overlap, twice as
    much.

    .. math::
        L = 2 (1 - IoU) \\
        + 0

    With :math:`x_1` as in :class:`Other`.

    .. math:: x_1 = 2

    Second paragraph, ``code``.

    Args:
        scale: how much of it,
            at least 0.

            More of it.
        eps: the smallest denominator.
        reduction: as ever.
        loss_weight: as ever.

    Use:
        Never.

    Disjoint:
        2.

    Raises:
        ValueError: shapes.

    Reference:
        Nobody: Nothing. 2026.

    Note:
        One.

        Two.
    """

    paper = "Nobody, 2026"
    constant_in_gradient = ("nothing", "that matters")
    monotone_in_distance = False
    zero_at_target = False
    inputs = ("image_size",)

    def __init__(self, *, scale=2.0, eps=1e-7, reduction="mean", loss_weight=1.0):
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        self.scale = scale


@pytest.fixture
def bar():
    MODELS.register_module(module=BarLoss)
    yield loss_card(next(info for info in list_losses() if info.name == "BarLoss"))
    del MODELS.module_dict["BarLoss"]


def test_a_card_has_every_section_of_the_class(bar):
    assert bar.info.name == "BarLoss" and not bar.wraps
    assert bar.kind == "box loss on decoded boxes; needs the input ``image_size``"
    assert bar.body == (
        "Overlap, twice as much.",
        r".. math:: L = 2 (1 - IoU) \\ + 0",
        "With :math:`x_1` as in :class:`Other`.",
        ".. math:: x_1 = 2",
        "Second paragraph, ``code``.",
    )
    assert bar.parameters == {
        "scale": ("2.0", "how much of it, at least 0. More of it."),
        "eps": ("1e-07", "the smallest denominator."),
    }
    assert bar.facts == {
        "Use": "Never.",
        "Disjoint boxes": "2.",
        "Constant in the gradient": "nothing, that matters",
        "Distance": "may fall as a box moves away from its target",
        "Perfect prediction": "not 0 at a perfect prediction",
        "Note": "One. Two.",
        "Reference": "Nobody: Nothing. 2026.",
    }
    assert bar.example == "BarLoss"


def test_terminal_text_has_no_markup(bar):
    text = card_text(bar)
    assert text.startswith(
        "BarLoss: box loss on decoded boxes; needs the input image_size\n\n"
        "Overlap, twice as much.\n\n    L = 2 (1 - IoU) \\\\ + 0\n\nWith x_1 as in Other.\n"
    )
    assert "\n  scale (2.0): how much of it, at least 0. More of it.\n" in text
    assert "\n\n    x_1 = 2\n\nSecond paragraph, code.\n" in text
    assert "\n\nDisjoint boxes\n  2.\n" in text
    assert "\n\nPerfect prediction\n  not 0 at a perfect prediction\n" in text
    assert "Published" not in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_markdown_shows_formulas_as_github_does(bar):
    text = card_markdown(bar)
    assert "```math\nL = 2 (1 - IoU) \\\\ + 0\n```" in text
    assert "With $`x_1`$ as in `Other`." in text
    assert "\n- **Parameter** `scale` (`2.0`): how much of it, at least 0. More of it.\n" in text
    assert "\n- **Note**: One. Two.\n" in text
    assert "loss_weight" not in text


def test_a_loss_with_a_docstring_without_sections_has_a_card(bar, monkeypatch):
    monkeypatch.setattr(BarLoss, "__doc__", "Mine.")
    card = loss_card(next(info for info in list_losses() if info.name == "BarLoss"))
    assert card.body == ("Mine.",) and "Use" not in card.facts
    assert card.facts["Reference"] == "Nobody, 2026"
    assert card.parameters["scale"] == ("2.0", "")
    assert "```math" not in card_markdown(card)
    assert card_text(card).startswith("BarLoss: ")


def test_the_card_of_a_wrapper_omits_facts_of_the_wrapped_loss():
    inner = next(card for card in CARDS if card.info.name == "InnerIoU")
    assert inner.wraps and inner.parameters["loss"][0] == ""
    # CIoU's alpha, from the example, is not a fact of InnerIoU
    assert "Constant in the gradient" not in inner.facts
    assert inner.example == "InnerIoU(CIoULoss)"
    assert "\n  loss (required): " in card_text(inner)


def test_the_hand_written_part_is_preserved_exactly():
    by_hand = f"{BY_HAND}\n\nMine:  two spaces.\n\n## More\n"
    text = cards_markdown(CARDS[:2], f"# Old\n\n### Gone\n\n{by_hand}")
    assert text.endswith(by_hand) and "Gone" not in text
    assert cards_markdown(CARDS[:2], text) == text
    assert BY_HAND not in cards_markdown(CARDS[:2])


def test_links_in_the_contents_have_a_heading():
    text = cards_markdown(CARDS, f"{BY_HAND}\n\nMine.\n")
    headings = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    fragments = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
    links = re.findall(r"\]\(#([^)]*)\)", text)
    assert set(links) == fragments and len(links) == len(headings)
    assert {card.info.name for card in CARDS} <= set(headings)


def test_every_card_is_complete():
    for card in CARDS:
        name = card.info.name
        assert any(paragraph.startswith(FORMULA) for paragraph in card.body), name
        assert {"Use", "Shape", "Reference"} <= set(card.facts) and card.info.paper, name
        assert all(description for _, description in card.parameters.values()), name
        if card.info.space == "decoded" and not card.wraps:
            assert "Disjoint boxes" in card.facts, name
        assert type(build_loss(card.example)).__name__ == name
        doc = inspect.getdoc(MODELS.module_dict[name])
        assert "\n:param" not in doc and ".. note" not in doc


# Their gradient enlarges disjoint boxes.
ENLARGING = ("GIoULoss", "DIoULoss", "CIoULoss")


@pytest.mark.parametrize("name", ENLARGING)
def test_the_gradient_moves_and_enlarges_disjoint_boxes_as_the_cards_state(name):
    target = torch.tensor([[0.0, 0, 30, 50]], dtype=torch.float64)
    pred = (target + 100).requires_grad_()  # same size as the target, to the lower right
    (gradient,) = torch.autograd.grad(build_loss(name)(pred, target), pred)
    x1, y1, x2, y2 = gradient[0]
    assert x1 + x2 > 0 and y1 + y2 > 0  # a step against the gradient moves it up and to the left
    assert x2 < x1 and y2 < y1  # and makes it wider and higher


@pytest.mark.parametrize("name", ["DIoULoss", "CIoULoss", "EIoULoss"])
def test_the_loss_of_disjoint_boxes_rises_straight_away_and_falls_sideways(name):
    loss, target = build_loss(name), torch.tensor([[0.0, 0, 10, 10]], dtype=torch.float64)

    def at(dx, dy):
        return loss(target + torch.tensor([dx, dy, dx, dy]), target)

    assert at(20, 100) < at(40, 200) < at(60, 300)
    assert at(10, 100) < at(0, 100)  # 1 + 10100 / 12500 < 1 + 10000 / 12200


def test_cards_state_which_losses_do_not_train_disjoint_boxes():
    for name in ("IoULoss", "AlphaIoULoss", "FocalEIoULoss"):
        pred = torch.tensor([[100.0, 0, 120, 10]], requires_grad=True)
        (gradient,) = torch.autograd.grad(build_loss(name)(pred, torch.zeros_like(pred)), pred)
        assert not gradient.any()
        card = next(card for card in CARDS if card.info.name == name)
        assert "zero gradient" in card.facts["Disjoint boxes"]
