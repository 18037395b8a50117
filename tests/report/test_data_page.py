"""The page about data: numbers of a table, and data at the limits."""

import re

import numpy as np
import pytest
import torch

from det_losses.data.box_table import BoxTable
from det_losses.report.data_page import CoverageNumbers, trained_image, write_data_page


def table(boxes, images=3):
    return BoxTable(
        [f"{row}.jpg" for row in range(images)],
        np.tile([40.0, 30.0], (images, 1)),
        np.zeros(len(boxes), int),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.zeros(len(boxes), int),
        ("<b>cat</b>", "dog"),
    )


@pytest.mark.parametrize("boxes", [[], [[0, 0, 10, 10]], [[0, 0, 10, 10]] * 3, [[0, 0, 1e-3, 30]]])
def test_data_at_the_limits_make_a_page(tmp_path, boxes):
    tables = {"training": table([[0, 0, 9, 16]]), "validation": table(boxes)}
    notes = {"both": ["a <note>"], "train": ["x.json: WRONG BOXES? 3 of 3"]}
    file = write_data_page(tmp_path / "new", "Data of x", tables, notes, None, [])
    page = file.read_text()
    assert "<h1>The boxes are probably wrong</h1>" in page
    assert page.index("WRONG BOXES?") < page.index("a &lt;note&gt;")
    assert "<b>cat" not in page and "&lt;b&gt;cat" in page
    assert "1 training image" not in page and "3 training images with 1 box;" in page
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    assert cells[:3] == ["3", "1", "2"]  # images, boxes, images without a box
    assert "12 (12 to 12)" in cells  # sqrt(9 * 16)


def test_a_picture_has_the_size_of_the_resized_image(tmp_path):
    image = torch.zeros(3, 30, 40, dtype=torch.uint8)
    boxes, covered = np.array([[8.0, 6, 80, 60], [0, 0, 4, 4]]), np.array([True, False])
    made = trained_image(image, (160, 120), boxes, ["cat", "dog"], covered, 7)
    assert made.title == "image 7, 160 x 120, 2 boxes, 1 not covered"
    coverage = CoverageNumbers("an anchor", [("cat", 2, 0.5)], [("0 to 8 px", 2, 0.5)])
    tables = {"training": table([[0, 0, 9, 16]])}
    page = write_data_page(tmp_path, "Data", tables, {}, coverage, [made]).read_text()
    assert "<h1>Nothing looks wrong</h1>" in page and "50% of 2" in page
    assert "<div>image 7, 160 x 120, 2 boxes, 1 not covered</div>" in page
    assert page.count("stroke-dasharray") == 1  # the box that is not covered
