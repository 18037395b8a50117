"""The small figure of one loss, for its card: gradient and value for each question."""

from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib.figure import Figure

from det_losses.losses.core.base import Loss
from det_losses.plots import probe
from det_losses.plots.curve_figure import paint, shade_disjoint
from det_losses.plots.curves import curves, questions, remarks
from det_losses.plots.sheet import add_axes, add_text, as_svg, sheet
from det_losses.report.plotting import FONT, clean, styles

_PANEL, _HEIGHT = 108, 100  # size of a panel
_LEFT, _RIGHT = 60, 10  # widths before each panel, and after the last one
_PAIR = 2 * (_LEFT + _PANEL)
_TITLE, _HEAD, _FOOT = 26, 24, 42  # heights above all panels, and above and below each


def card_svg(name: str) -> bytes:
    """Draw a registered loss; one with required arguments gets those of its ``example``.

    Raises:
        UserError: the loss cannot be drawn alone.
    """
    ((label, loss),) = probe.named_losses([name]).items()
    with card_figure(label, loss) as figure:
        return as_svg(figure)


@contextmanager
def card_figure(label: str, loss: Loss) -> Iterator[Figure]:
    """Draw two panels for each question, two questions in a row."""
    asked = questions(probe.kind_of(loss))
    found = [curves(question, {label: loss})[label] for question in asked]
    notes = remarks(probe.kind_of(loss), {label: loss})
    across, row = min(2, len(asked)), _HEAD + _HEIGHT + _FOOT
    with sheet(_PAIR * across + _RIGHT, _TITLE + row * -(-len(asked) // across), notes) as figure:
        add_text(figure, 8, 17, clean(label, 60), fontsize=FONT + 1, weight="bold")
        for index, (question, curve) in enumerate(zip(asked, found, strict=True)):
            left, top = _PAIR * (index % across), _TITLE + row * (index // across) + _HEAD
            add_text(figure, left + 8, top - 9, question.title)
            for column, what in enumerate(("gradient", "value")):
                x = left + column * _PAIR / 2 + _LEFT
                axes = add_axes(figure, x, top, _PANEL, _HEIGHT)
                paint(axes, question, {label: getattr(curve, what)}, styles([label]))
                if question.disjoint_from is not None:
                    shade_disjoint(axes, question, 0.92 if what == "gradient" else 0.3)
                y_label = "loss" if what == "value" else question.gradient_label
                axes.set(xlabel="", ylabel=y_label)
            middle = left + (_LEFT + _PAIR) / 2
            add_text(figure, middle, top + _HEIGHT + 32, question.x_label, ha="center")
        yield figure
