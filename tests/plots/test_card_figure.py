import xml.etree.ElementTree as ET

import numpy as np
import pytest

from det_losses import build_loss
from det_losses.errors import InputError
from det_losses.losses import list_losses
from det_losses.losses.core.base import Loss
from det_losses.plots.card_figure import card_figure, card_svg
from det_losses.registry import MODELS

AXES = ".//{http://www.w3.org/2000/svg}g[@id='axes_%d']"


@pytest.mark.parametrize(
    ("name", "title", "questions"),
    [
        ("L1Loss", "L1Loss", 1),
        ("InnerIoU", "InnerIoU(CIoULoss)", 4),
        ("SeesawLoss", "SeesawLoss(num_classes=3)", 1),
    ],
)
def test_a_card_has_two_panels_per_question_and_the_name_once(name, title, questions):
    root = ET.fromstring(card_svg(name))
    assert root.find(AXES % (2 * questions)) is not None
    assert root.find(AXES % (2 * questions + 1)) is None
    assert [text.text for text in root.iterfind(".//{*}text")].count(title) == 1


def test_the_left_panel_is_the_gradient_and_the_right_one_the_value():
    """The gradient of the absolute error is its sign."""
    with card_figure("L1Loss", build_loss("L1Loss")) as figure:
        (error, gradient), (_, value) = (axes.lines[0].get_data() for axes in figure.axes)
    np.testing.assert_allclose(gradient, np.sign(error))
    np.testing.assert_allclose(value, np.abs(error))


@pytest.mark.slow
@pytest.mark.parametrize("name", [info.name for info in list_losses()])
def test_all_losses_of_the_package_are_drawn(name):
    ET.fromstring(card_svg(name))


def test_a_loss_with_an_unknown_input_is_a_user_error():
    class NeedsMasks(Loss):
        kind, space, inputs = "box", "delta", ("masks",)
        paper = "a test"

    MODELS.register_module(module=NeedsMasks)
    try:
        with pytest.raises(InputError, match="needs the input 'masks'"):
            card_svg("NeedsMasks")
    finally:
        MODELS.module_dict.pop("NeedsMasks")
