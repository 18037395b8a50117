import pytest
import torch

from det_losses.inference import draw
from det_losses.inference.drawing import COLOURS


def found(*boxes):
    count = len(boxes)
    return dict(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.linspace(0.9, 0.5, count),
        labels=torch.arange(count),
        names=[f"class {i}" for i in range(count)],
    )


def rgb(colour):
    return torch.tensor([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=torch.uint8)


@pytest.mark.parametrize("scale", [1, 2])
def test_the_box_has_its_place_and_the_colour_of_its_class(scale):
    image = torch.full((3, 300, 400), 110, dtype=torch.uint8)
    drawn = draw(image, found([100, 120, 200, 220], [220, 200, 390, 290]), scale=scale)
    assert drawn.shape == (3, 300 * scale, 400 * scale) and drawn.dtype == torch.uint8
    assert torch.equal(drawn[:, 220 * scale, 150 * scale], rgb(COLOURS[0]))
    assert torch.equal(drawn[:, 290 * scale, 300 * scale], rgb(COLOURS[1]))
    assert (drawn[:, 170 * scale, 150 * scale] == 110).all()  # inside
    assert (image == 110).all()


@pytest.mark.parametrize(
    "box", [[0, 0, 60, 30], [380, 0, 400, 20], [390, 290, 400, 300], [-5, -5, 420, 320]]
)
def test_a_label_lies_inside_the_image(box):
    """A filled rectangle of the text's width and height is found, whatever the corner."""
    image = torch.zeros(3, 300, 400, dtype=torch.uint8)
    drawn = draw(image, found(box))
    filled = (drawn == rgb(COLOURS[0])[:, None, None]).all(0)
    rows, columns = filled.sum(1), filled.sum(0)
    assert rows.max() > 60 and columns.max() > 8  # "class 0 0.90" in a font of 10 pixels


def test_an_image_without_boxes_is_unchanged():
    image = torch.randint(256, (3, 20, 30)).to(torch.uint8)
    assert torch.equal(draw(image, found()), image)
