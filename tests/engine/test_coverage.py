"""Coverage of a data set by a config's anchors, and advice that does what it says."""

import pytest
from boxes_without_anchors import Boxes, tiny
from mmengine.config import ConfigDict

from det_losses.data.coco import CocoDataset
from det_losses.engine import coverage
from det_losses.engine.config import apply_options, read_config
from det_losses.engine.coverage import advise, coverage_notes, measure


@pytest.mark.parametrize("kind", ["RetinaNet", "FasterRCNN", "FCOS"])
@pytest.mark.parametrize("shrunk", [1.0, 0.2])  # boxes of 16 px, and of 3 px in images of 256 px
def test_the_advice_gives_the_share_that_it_says(kind, shrunk):
    """The options of the sentence, put into the config, are measured again."""
    before = measure(tiny(kind).model, Boxes(shrunk))
    assert "platelet" in [name for name, _, _ in before.poor_classes]
    advices = advise(before)
    [note] = coverage_notes(before)
    parts = note.split("--cfg-options ")[1:]
    assert len(parts) == len(advices) > 0
    for part, advice in zip(parts, advices, strict=True):
        cfg = tiny(kind)
        apply_options(cfg, part.split(" it is ")[0].split())
        after = measure(cfg.model, Boxes(shrunk))
        assert after.covered.mean() == pytest.approx(advice.share, abs=1e-9)
        assert f" it is {100 * (1 - advice.share):.0f}% (" in part
        assert advice.share > before.covered.mean() + 0.01
    assert shrunk == 1 or advices[-1].scale > 1  # boxes of 3 px need larger images


def test_anchors_are_fitted_to_the_boxes_of_a_rare_class_too():
    """At 160 px few platelets, of 8 px, have an anchor among those of 16 px and more."""
    cfg = read_config("small/faster_rcnn_lite0")
    cfg.model.update(min_size=160, max_size=160)
    before = measure(cfg.model, Boxes(0.8))
    assert before.by_class()[1][2] < 0.2
    assert "platelet) have no anchor" in coverage_notes(before)[0]
    advice = advise(before)[0]
    apply_options(cfg, [f"{key}={value}" for key, value in advice.options.items()])
    after = measure(cfg.model, Boxes(0.8))
    assert cfg.model.min_size == 160
    assert after.by_class()[0][2] > 0.9 and after.by_class()[1][2] > 0.8


def test_sizes_that_leave_most_boxes_without_an_anchor_are_not_advised():
    """RetinaNet's finest feature map has one position in 8 px, too few for platelets of 8 px."""
    cfg = read_config("small/retinanet_lite0")
    cfg.model.update(min_size=160, max_size=160)
    before = measure(cfg.model, Boxes(0.8))
    assert before.by_class()[0][2] > 0.95 and before.by_class()[1][2] < 0.2
    [note] = coverage_notes(before)
    assert note.startswith("98 of 1000 training boxes (10%; 89% of platelet) have no anchor")
    assert [advice.scale for advice in advise(before)] == [1.5]


def test_few_boxes_and_unknown_detectors_give_no_sentence():
    assert coverage_notes(measure(tiny("RetinaNet").model, Boxes(0.2, images=1))) == []
    assert measure(object(), Boxes()) is None
    assert measure(tiny("RetinaNet").model, object()) is None
    assert measure(dict(type="ImgDataPreprocessor"), Boxes()) is None
    assert coverage_notes(None) == []


def test_a_model_that_cannot_be_measured_does_not_stop_the_training(monkeypatch):
    def fail(*args):
        raise RuntimeError("a blank image\nis too small")

    monkeypatch.setattr(coverage, "targets_of", fail)
    notes = coverage.notes_before_training(tiny("RetinaNet").model, Boxes(), None)
    reason = "RuntimeError: a blank image is too small"
    assert notes == {"train": [f"boxes without anchors were not counted ({reason})"]}


def test_transforms_that_change_sizes_are_applied(tiny_coco):
    data = tiny_coco()

    def sides(*transforms):
        dataset = CocoDataset(*data, transforms=transforms)
        return measure(ConfigDict(tiny("RetinaNet").model), dataset).sides

    flipped = dict(type="RandomHorizontalFlip", p=1.0)
    padded = dict(type="Pad", padding=[50, 50, 50, 50])  # the boxes become smaller when resized
    assert sides(flipped) == pytest.approx(sides())
    assert len(sides(flipped, padded)) == len(sides())
    assert sides(flipped, padded).mean() < 0.7 * sides().mean()
