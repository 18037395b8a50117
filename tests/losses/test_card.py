"""Cards: what the parser takes from a class, and what every loss of this package has to say."""

import inspect
import re

import pytest
import torch

from det_losses import list_losses
from det_losses.losses import IoUFamilyLoss, build_loss
from det_losses.losses.core.card import Parameter, loss_card, loss_cards
from det_losses.losses.core.card_text import BY_HAND, card_markdown, card_text, cards_markdown
from det_losses.registry import MODELS

CARDS = [
    card
    for card in loss_cards()
    if MODELS.module_dict[card.name].__module__.startswith("det_losses.losses.")
]


class BarLoss(IoUFamilyLoss):
    r"""Overlap, twice as
    much.

    .. math::
        L = 2 (1 - IoU) \\
        + 0

    With :math:`x_1` as in :class:`Other`.

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


def test_every_part_of_the_class_is_in_its_place(bar):
    assert (bar.name, bar.kind, bar.space, bar.activation) == ("BarLoss", "box", "decoded", None)
    assert bar.inputs == ("image_size",) and not bar.wraps and not bar.zero_at_target
    assert bar.summary == "Overlap, twice as much."
    assert bar.formula == r"L = 2 (1 - IoU) \\ + 0"
    assert bar.about == ("With :math:`x_1` as in :class:`Other`.\n\nSecond paragraph, ``code``.")
    assert bar.parameters[:2] == (
        Parameter("scale", "2.0", "how much of it, at least 0.\n\nMore of it."),
        Parameter("eps", "1e-07", "the smallest denominator."),
    )
    assert (bar.use, bar.disjoint, bar.note) == ("Never.", "2.", "One.\n\nTwo.")
    assert (bar.reference, bar.paper) == ("Nobody: Nothing. 2026.", "Nobody, 2026")
    assert bar.constant_in_gradient == ("nothing", "that matters")
    assert (bar.monotone_in_distance, bar.published, bar.shape) == (True, "", "")
    assert bar.example == "BarLoss"


def test_text_is_plain(bar):
    text = card_text(bar)
    assert text.startswith(
        "BarLoss: box loss on decoded boxes; needs the input image_size\n\n"
        "Overlap, twice as much.\n\n    L = 2 (1 - IoU) \\\\ + 0\n\nWith x_1 as in Other.\n"
    )
    assert "\n  scale (2.0): how much of it, at least 0.\n" in text
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


def test_a_loss_without_a_docstring_of_this_form_has_a_card(bar, monkeypatch):
    monkeypatch.setattr(BarLoss, "__doc__", "Mine.")
    card = loss_card(next(info for info in list_losses() if info.name == "BarLoss"))
    assert (card.summary, card.formula, card.use) == ("Mine.", "", "")
    assert card.parameters[0] == Parameter("scale", "2.0", "")
    assert "```math" not in card_markdown(card)
    assert card_text(card).startswith("BarLoss: ")


def test_wrappers_say_what_is_theirs_and_need_an_argument():
    inner = next(card for card in CARDS if card.name == "InnerIoU")
    assert inner.wraps and inner.parameters[0].default == ""
    assert inner.constant_in_gradient == ()  # CIoU's alpha, of the example, is not InnerIoU's
    assert inner.example == "InnerIoU(CIoULoss)"
    assert "\n  loss (required): " in card_text(inner)


def test_what_stands_by_hand_is_kept_to_the_letter():
    by_hand = f"{BY_HAND}\n\nMine:  two spaces.\n\n## More\n"
    text = cards_markdown(CARDS[:2], f"# Old\n\n### Gone\n\n{by_hand}")
    assert text.endswith(by_hand) and "Gone" not in text
    assert cards_markdown(CARDS[:2], text) == text
    assert BY_HAND not in cards_markdown(CARDS[:2])


def test_links_of_the_contents_have_a_heading():
    text = cards_markdown(CARDS, f"{BY_HAND}\n\nMine.\n")
    headings = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    fragments = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
    links = re.findall(r"\]\(#([^)]*)\)", text)
    assert set(links) == fragments and len(links) == len(headings)
    assert {card.name for card in CARDS} <= set(headings)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_is_whole(card):
    for part in ("summary", "formula", "use", "shape", "paper", "reference"):
        assert getattr(card, part), f"{card.name} does not say its {part}"
    assert all(parameter.text for parameter in card.parameters)
    if card.space == "decoded" and not card.wraps:
        assert card.disjoint, f"{card.name} does not say what it does on disjoint boxes"
    assert type(build_loss(card.example)).__name__ == card.name
    doc = inspect.getdoc(MODELS.module_dict[card.name])
    assert "\n:param" not in doc and ".. note" not in doc


# Sideways the hull grows faster than the distance; alone the overlap has nothing to say.
PULLS = ("GIoULoss", "DIoULoss", "CIoULoss")


@pytest.mark.parametrize("name", PULLS)
def test_disjoint_boxes_are_pulled_and_enlarged_as_the_cards_say(name):
    target = torch.tensor([[0.0, 0, 30, 50]], dtype=torch.float64)
    pred = (target + 100).requires_grad_()  # of the target's own size, to the lower right
    (gradient,) = torch.autograd.grad(build_loss(name)(pred, target), pred)
    x1, y1, x2, y2 = gradient[0]
    assert x1 + x2 > 0 and y1 + y2 > 0  # a step against the gradient moves it up and to the left
    assert x2 < x1 and y2 < y1  # and makes it wider and higher


@pytest.mark.parametrize("name", ["DIoULoss", "CIoULoss", "EIoULoss"])
def test_disjoint_boxes_of_one_size_rise_straight_away_and_fall_sideways(name):
    loss, target = build_loss(name), torch.tensor([[0.0, 0, 10, 10]], dtype=torch.float64)

    def at(dx, dy):
        return loss(target + torch.tensor([dx, dy, dx, dy]), target)

    assert at(20, 100) < at(40, 200) < at(60, 300)
    assert at(10, 100) < at(0, 100)  # 1 + 10100 / 12500 beside 1 + 10000 / 12200


def test_the_losses_that_do_not_train_disjoint_boxes_say_so():
    for name in ("IoULoss", "AlphaIoULoss", "FocalEIoULoss"):
        pred = torch.tensor([[100.0, 0, 120, 10]], requires_grad=True)
        (gradient,) = torch.autograd.grad(build_loss(name)(pred, torch.zeros_like(pred)), pred)
        assert not gradient.any()
        card = next(card for card in CARDS if card.name == name)
        assert "gradient" in card.disjoint
