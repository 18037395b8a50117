"""Anchors fitted to the training data: what is set, when nothing is, and what a resume keeps."""

from types import SimpleNamespace

import pytest
from boxes_without_anchors import Boxes, tiny
from mmengine.config import Config

from det_losses.engine import fitted_anchors
from det_losses.engine.config import read_config
from det_losses.engine.coverage import measure, untrained
from det_losses.engine.fitted_anchors import use_fitted_anchors
from det_losses.errors import InputError, NotRegisteredError


@pytest.fixture
def experiment(monkeypatch):
    """Make a config whose training data are ``Boxes``, or another dataset."""
    seen = []

    def make(cfg, data):
        def build(one):
            seen.append(one)
            return {"train_dataloader": data}

        monkeypatch.setattr(fitted_anchors, "build_datasets", build)
        cfg.train_dataloader = dict(dataset=dict(type="CocoDataset", ann_file="a", image_dir="b"))
        return cfg

    make.seen = seen
    return make


def positions(cfg, data):
    """The number of anchors per position of each level, which the heads' channels follow."""
    detector = untrained(cfg.model, data).detector
    generator = getattr(detector, "rpn", detector).anchor_generator
    return generator.num_anchors_per_location()


@pytest.mark.parametrize("kind", ["RetinaNet", "FasterRCNN", "FCOS"])
def test_the_config_has_the_advised_sizes_and_as_many_anchors(kind, experiment):
    cfg, data = experiment(tiny(kind), Boxes()), Boxes()
    count, before = positions(cfg, data), measure(cfg.model, data)
    line = use_fitted_anchors(cfg)
    after = measure(cfg.model, data)
    assert after.covered.mean() > before.covered.mean()
    # one line has the shares before and after, as measured again, and the values that are set
    name, _, share = before.poor_classes[0]
    shares = [100 * each.covered.mean() for each in (after, before)]
    assert f": {shares[0]:.0f}% of 1,000 boxes have {before.what}" in line
    assert f", before {shares[1]:.0f}% ({name}: " in line and f"before {100 * share:.0f}%)" in line
    key = "anchor_sizes" if kind == "FCOS" else "anchors.sizes"
    assert f"model.{key}=[" in line and "\n" not in line
    assert positions(cfg, data) == count
    # A second fit finds nothing to improve.
    fitted = cfg.model.to_dict()
    assert use_fitted_anchors(cfg).startswith("anchors: not changed: ")
    assert cfg.model.to_dict() == fitted


def test_published_anchors_that_the_config_does_not_name_are_replaced(experiment):
    """Boxes of 4 px on maps of stride 8 and more: torchvision's anchors are 32 px and larger."""
    model = tiny("FasterRCNN", backbone=read_config("small/faster_rcnn_lite0").model.backbone).model
    del model["anchors"]
    cfg = experiment(Config({"model": model}), Boxes(0.3))
    count = positions(cfg, Boxes())
    assert "fitted to the training data" in use_fitted_anchors(cfg)
    assert len(cfg.model.anchors.sizes) == 5
    assert positions(cfg, Boxes()) == count


@pytest.mark.parametrize(
    ("model", "data", "end"),
    [
        (tiny("FCOS", anchor_sizes=[8, 16, 32]), Boxes(), "a location to learn it from"),
        (tiny("RetinaNet"), Boxes(images=1), ", too few to fit sizes to"),
        (tiny("RetinaNet"), Boxes(0.05), ", and other sizes do not give clearly more boxes one"),
    ],
)
def test_nothing_changes_if_it_is_enough_or_does_not_help(model, data, end, experiment):
    cfg = experiment(model, data)
    before = cfg.model.to_dict()
    line = use_fitted_anchors(cfg)
    assert line.startswith("anchors: not changed: ") and line.endswith(end)
    assert cfg.model.to_dict() == before


def test_all_folds_are_fitted_together_without_validation_data(experiment):
    cfg = experiment(tiny("RetinaNet"), Boxes())
    cfg.train_dataloader.dataset.folds = dict(count=3, key=None, index=1)
    cfg.val_dataloader = dict(dataset=dict(type="CocoDataset", ann_file="a", image_dir="b"))
    use_fitted_anchors(cfg)
    [built] = experiment.seen
    assert built.train_dataloader.dataset.folds.index is None
    assert "val_dataloader" not in built
    assert cfg.train_dataloader.dataset.folds.index == 1


def test_a_continued_run_keeps_the_anchors_that_it_has(experiment):
    stored = experiment(tiny("RetinaNet"), Boxes())
    use_fitted_anchors(stored)
    del experiment.seen[:]
    cfg = experiment(tiny("RetinaNet"), object())  # which cannot be fitted to
    assert use_fitted_anchors(cfg, stored) == "anchors: those with which this was started"
    assert cfg.model.to_dict() == stored.model.to_dict()
    assert not experiment.seen
    # One that was started with the config's own anchors is not adopted: see the run's own check.
    cfg = experiment(tiny("RetinaNet"), Boxes())
    assert "fitted to the training data" in use_fitted_anchors(cfg, tiny("RetinaNet"))


def test_what_cannot_be_fitted_is_an_error(experiment, monkeypatch):
    unknown = SimpleNamespace(metainfo=Boxes().metainfo)  # no box_table
    cfg = experiment(tiny("RetinaNet"), unknown)
    with pytest.raises(InputError, match=r"^--fit-anchors: it is not known which boxes of a S"):
        use_fitted_anchors(cfg)
    cfg = experiment(tiny("RetinaNet", anchors=dict(sizes=[[8]], aspect_ratios=[1.0])), Boxes())
    with pytest.raises(InputError, match=r"^model\.anchors: RetinaNet anchors need sizes for each"):
        use_fitted_anchors(cfg)
    with pytest.raises(NotRegisteredError, match="RetinaNett"):
        use_fitted_anchors(experiment(tiny("RetinaNett"), Boxes()))
    monkeypatch.setattr(fitted_anchors, "measure", lambda *args: 1 / 0)
    with pytest.raises(InputError, match="cannot be counted: ZeroDivisionError"):
        use_fitted_anchors(experiment(tiny("RetinaNet"), Boxes()))
