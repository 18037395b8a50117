import numpy as np
import pytest
from synthetic_comparison import write_comparison

from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.report.analyses.context import Context
from det_losses.report.study import Study


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """Context of a comparison of four losses and three seeds with planted differences."""
    return Context(Study.load([write_comparison(tmp_path_factory.mktemp("planted") / "study")]))


@pytest.fixture
def make_context(make_comparison):
    """Factory of a context: ``make_context(**planted)``, see ``make_comparison``."""

    def make(**options):
        return Context(Study.load([make_comparison(**options)]))

    return make


@pytest.fixture
def make_truth():
    """Factory of a ground truth: image id -> list of (category id, [x, y, w, h], crowd)."""

    def make(images, names=((3, "cat"), (7, "dog"))):
        boxes = [(image_id, *box) for image_id, found in images.items() for box in found]
        annotations = [
            dict(
                id=number,
                image_id=image_id,
                category_id=category,
                bbox=box,
                area=box[2] * box[3],
                iscrowd=crowd,
            )
            for number, (image_id, category, box, crowd) in enumerate(boxes, 1)
        ]
        entries = [dict(id=i, file_name=f"{i}.png", width=200, height=100) for i in images]
        categories = [dict(id=key, name=name) for key, name in names]
        coco = dict(images=entries, annotations=annotations, categories=categories)
        return GroundTruth(coco), coco

    return make


@pytest.fixture
def rows():
    """From (image id, [x, y, w, h], score, category id) to the rows of detections, [N, 7]."""

    def make(*found):
        return np.array([[i, *box, score, k] for i, box, score, k in found], float).reshape(-1, 7)

    return make
