"""Detections and assigned boxes of a batch equal torchvision's for each image, bit by bit."""

import pytest
import torch
from torchvision.models import detection as tv
from torchvision.ops import batched_nms

from det_losses.models import FCOS, RetinaNet, SmallResNetFPN
from det_losses.models.fcos import match_locations
from det_losses.models.postprocessing import nms_by_class

SIZES = [(64, 96), (80, 64), (64, 64)]
SETTINGS = dict(min_size=64, max_size=96, detections_per_img=60, topk_candidates=150)


def body():
    torch.manual_seed(0)
    return SmallResNetFPN((8, 8, 16, 16, 16), out_channels=16, extra_levels=None, norm="FrozenBN")


def retinanet():
    levels = dict(sizes=[[8, 12], [16, 24], [32, 48]], aspect_ratios=[1.0])
    return RetinaNet(body(), 5, anchors=levels, score_thresh=0.3, **SETTINGS)


def fcos():
    return FCOS(body(), 5, anchor_sizes=(8, 16, 32), score_thresh=0.4, **SETTINGS)


@pytest.mark.parametrize("most", [1, 2**20])  # scores: image by image, and together
@pytest.mark.parametrize(("build", "theirs"), [(retinanet, tv.RetinaNet), (fcos, tv.FCOS)])
def test_detections_equal_torchvisions(build, theirs, most, monkeypatch):
    monkeypatch.setattr("det_losses.models.postprocessing._MOST_SCORES", most)
    detector = build().detector.eval()
    outputs = {}
    postprocess = detector.postprocess_detections
    detector.postprocess_detections = lambda *args: outputs.update(args=args) or postprocess(*args)
    with torch.no_grad():
        detector([torch.rand(3, *size) for size in SIZES])
        heads, anchors, shapes = outputs["args"]
        for name, levels in heads.items():
            values = [torch.randn_like(level) for level in torch.cat(levels, dim=1)]
            if name == "cls_logits":  # one decimal: many scores are equal
                values = [(each * 10).round() / 10 for each in values]
                values[1] -= 100  # no detection
                values[2][5:] -= 100  # detections in one level only
            counts = [level.shape[1] for level in levels]
            heads[name] = torch.stack(values).split(counts, dim=1)
        found = postprocess(heads, anchors, shapes)
        expected = theirs.postprocess_detections(detector, heads, anchors, shapes)
    assert [len(each["scores"]) for each in found[:2]] == [60, 0] and len(found[2]["scores"]) > 2
    for ours, wanted in zip(found, expected, strict=True):
        assert ours.keys() == wanted.keys()
        assert all(torch.equal(ours[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("count", [0, 900, 3000])  # torchvision's rule changes at 1000
def test_nms_by_class_equals_torchvisions(count):
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 90, (count, 2), generator=generator)
    sides = torch.randint(5, 40, (count, 2), generator=generator)
    boxes = torch.cat([corners, corners + sides], dim=1).float()
    scores = torch.randint(0, 100, (count,), generator=generator) / 100
    labels = torch.randint(0, 6, (count,), generator=generator) * 2  # some have no box
    expected = batched_nms(boxes, scores, labels, 0.5)
    assert torch.equal(nms_by_class(boxes, scores, labels, 0.5), expected)


@pytest.mark.parametrize("most", [0, 2_000_000])  # pairs: image by image, and together
def test_fcos_assigns_locations_as_torchvision(most, monkeypatch):
    monkeypatch.setattr("det_losses.models.fcos.MOST_PAIRS", most)
    generator = torch.Generator().manual_seed(0)
    levels = []
    for stride in (8, 16, 32):
        center = (torch.arange(128 // stride) + 0.5) * stride
        y, x = torch.meshgrid(center, center, indexing="ij")
        half = stride / 2
        levels.append(torch.stack([x - half, y - half, x + half, y + half], -1).flatten(0, 1))
    corners = torch.randint(0, 90, (40, 2), generator=generator)
    sides = torch.randint(4, 100, (40, 2), generator=generator)
    many = torch.cat([corners, corners + sides], dim=1).float()
    boxes = [
        many,
        torch.zeros(0, 4),
        torch.cat([many[:2], many[:1], many[:1] + 1]),  # a box twice, and one of equal area
        # Equal areas to the rounding of 1e8 - area; and a box larger than 1e8.
        torch.tensor([[0.0, 0, 64, 64], [0, 0, 64, 64.02], [0, 0, 10_010, 10_010]]),
    ]
    targets = [dict(boxes=own, labels=torch.zeros(len(own), dtype=torch.int64)) for own in boxes]
    counts = [len(level) for level in levels]
    anchors = torch.cat(levels)
    detector = fcos().detector
    detector.head.compute_loss = lambda _t, _o, _a, matched: matched
    expected = tv.FCOS.compute_loss(detector, targets, {}, [anchors] * len(boxes), counts)
    found = detector.compute_loss(targets, {}, [anchors] * len(boxes), counts)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert found[0].max() > 30 and (found[1] == -1).all() and (found[2] == 0).any()
    assert (match_locations(boxes[1:2], anchors, (256, 16), 1.5) == -1).all()
