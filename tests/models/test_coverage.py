"""Coverage of boxes by anchors and locations, against torchvision's own matching."""

import numpy as np
import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from det_losses.models import FCOS, FasterRCNN, RetinaNet
from det_losses.models.coverage import resized, targets_of

KINDS = {"RetinaNet": RetinaNet, "FasterRCNN": FasterRCNN, "FCOS": FCOS}
# strides 8, 16 and 32
BACKBONE = dict(type="SmallResNetFPN", widths=(4, 8, 8, 8, 8), out_channels=8, extra_levels=None)
ANCHORS = dict(sizes=[[13, 18], [27, 38], [53, 71]], aspect_ratios=[0.5, 1.0, 2.0])
IMAGE = (150, 100)  # width, height


def detector(kind, **kwargs):
    return KINDS[kind](BACKBONE, num_classes=2, min_size=150, max_size=210, **kwargs)


def random_boxes(count=300):
    rng = np.random.default_rng(0)
    centre = rng.uniform(0, IMAGE, (count, 2))
    half = np.exp(rng.uniform(np.log(1.5), np.log(60), (count, 2))) / 2
    corners = np.hstack([centre - half, centre + half]).clip(0, np.tile(IMAGE, 2))
    return corners[((corners[:, 2:] - corners[:, :2]) > 1).all(axis=1)]


def torchvision_anchors(model, boxes):
    """Run torchvision's transform, backbone and generator on one image with all boxes."""
    detector = model.detector.train()
    target = {"boxes": torch.tensor(boxes, dtype=torch.float32)}
    batch, (target,) = detector.transform([torch.zeros(3, *IMAGE[::-1])], [target])
    features = list(detector.backbone(batch.tensors).values())
    generator = getattr(detector, "rpn", detector).anchor_generator
    return (
        batch,
        features,
        generator(ImageList(batch.tensors, batch.image_sizes), features)[0],
        target,
    )


@pytest.mark.parametrize("kind", ["RetinaNet", "FasterRCNN"])
def test_best_iou_is_that_of_all_anchors_of_torchvision(kind):
    model, boxes = detector(kind, anchors=ANCHORS), random_boxes()
    _, _, anchors, target = torchvision_anchors(model, boxes)
    expected = box_iou(target["boxes"], anchors).max(dim=1).values
    targets = targets_of(model)
    assert targets.threshold == 0.5  # for an RPN too, whose matcher has 0.7
    moved = resized(model.detector.transform, boxes, np.tile(IMAGE, (len(boxes), 1)))
    assert targets.best_iou(*moved) == pytest.approx(expected.numpy(), abs=1e-4)
    assert targets.covers(*moved).tolist() == (expected >= targets.threshold).tolist()


@pytest.mark.parametrize("radius", [1.5, 3.0])
def test_a_box_is_covered_if_torchvision_assigns_it_a_location(radius, monkeypatch):
    """Each box is given alone, because torchvision prefers the smaller of two boxes."""
    model = detector("FCOS", anchor_sizes=(4, 8, 16), center_sampling_radius=radius)
    boxes = random_boxes(120)
    _, features, anchors, target = torchvision_anchors(model, boxes)
    counts = [level.shape[-2] * level.shape[-1] for level in features]
    assigned = []
    head = model.detector.head
    monkeypatch.setattr(
        head, "compute_loss", lambda t, h, a, matched: assigned.append((matched[0] >= 0).any())
    )
    for box in target["boxes"]:
        model.detector.compute_loss([{"boxes": box[None]}], {}, [anchors], counts)
    moved = resized(model.detector.transform, boxes, np.tile(IMAGE, (len(boxes), 1)))
    covered = targets_of(model).covers(*moved)
    assert covered.tolist() == [bool(found) for found in assigned]
    assert 0.2 < covered.mean() < 0.99
