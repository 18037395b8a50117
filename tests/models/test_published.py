"""A loss gets its weight and parameters by one rule, wherever it is named."""

import pytest
import torch
from mmengine.config import Config
from slot_losses import losses_of_slot
from torch import nn

from det_losses import build_loss
from det_losses.losses import L1Loss
from det_losses.models import FCOS, FasterRCNN, RetinaNet
from det_losses.models.published import SETTINGS, complete, table_of
from det_losses.models.slots import build_slot_losses
from det_losses.registry import MODELS, NotRegisteredError

DETECTORS = {"RetinaNet": RetinaNet, "FasterRCNN": FasterRCNN, "FCOS": FCOS, "GFL": FCOS}
SLOTS = [(table, slot) for table in SETTINGS for slot in SETTINGS[table]]
ENTRIES = [(table, slot, name) for table, slot in SLOTS for name in SETTINGS[table][slot].losses]
BACKBONE = {"type": "SmallResNetFPN", "widths": (8, 8, 8, 8), "out_channels": 16}
SMALL = {
    "RetinaNet": {"num_convs": 1, "anchors": {"sizes": [[16]] * 3, "aspect_ratios": [1.0]}},
    "FasterRCNN": {
        "representation_size": 8,
        "anchors": {"sizes": [[16]] * 3, "aspect_ratios": [1.0]},
    },
    "FCOS": {"num_convs": 1, "anchor_sizes": (8, 16, 32)},
    "GFL": {"num_convs": 1, "anchor_sizes": (8, 16, 32), "loss_dfl": "DistributionFocalLoss"},
}


def parameters(loss):
    """Return a loss's class and constructor arguments, including those of wrapped losses."""
    arguments = dict(loss.params())
    for key in ("loss", "losses"):
        inner = arguments.get(key)
        if isinstance(inner, nn.Module):
            arguments[key] = parameters(inner)
        elif inner is not None:
            arguments[key] = [parameters(each) for each in inner]
    return type(loss).__name__, arguments


def model_config(table, **losses):
    kind = DETECTORS[table].__name__
    return dict(type=kind, backbone=BACKBONE, num_classes=3, **{**SMALL[table], **losses})


@pytest.mark.parametrize(("table", "slot"), SLOTS)
def test_a_name_is_the_same_loss_in_a_config_in_python_and_in_a_comparison(table, slot):
    # Each registered loss, named without parameters where possible: from Python, from a config's
    # dict, and completed first, as in a comparison.
    detector = DETECTORS[table]
    one = {slot: detector.slots[slot]}
    for info in losses_of_slot(detector, slot):
        named = info.name if info.config.keys() == {"type"} else dict(info.config)
        from_dict = Config({"loss": dict(info.config)}).loss
        compared, _ = complete(table, slot, named)
        found = [
            parameters(build_slot_losses(detector.__name__, one, {slot: loss}, 3, table)[0][slot])
            for loss in (named, from_dict, compared)
        ]
        assert found[0] == found[1] == found[2]
        assert complete(table, slot, compared)[0] == compared


@pytest.mark.parametrize(
    ("table", "slot", "loss", "weight"),
    [
        ("RetinaNet", "loss_bbox", "EIoULoss", 2.5),
        ("FasterRCNN", "loss_bbox", "CIoULoss", 12.0),
        ("FCOS", "loss_bbox", "DIoULoss", 1.0),
        ("GFL", "loss_bbox", "DIoULoss", 2.0),
    ],
)
def test_a_detector_builds_the_loss_that_a_comparison_shows(table, slot, loss, weight):
    config = Config({"model": model_config(table, **{slot: loss})}).model
    assert table_of(config) == table
    compared, source = complete(table, slot, loss)
    assert compared["loss_weight"] == weight
    for given in (loss, {"type": loss}, compared):
        model = MODELS.build(Config({"model": model_config(table, **{slot: given})}).model)
        assert parameters(model.losses[slot]) == parameters(build_loss(compared))
    assert model.loss_sources.keys() == set(model.losses)
    named = MODELS.build(config)
    assert named.loss_sources[slot] == source
    assert not [key for key in named.state_dict() if "source" in key]
    one = MODELS.build(model_config(table, **{slot: {"type": loss, "loss_weight": 1.0}}))
    assert one.losses[slot].loss_weight == 1.0


@pytest.mark.parametrize(
    ("table", "slot", "loss", "added"),
    [
        # 2101.08158: weight 2.5 for IoU-type losses in RetinaNet.
        ("RetinaNet", "loss_bbox", "EIoULoss", {"loss_weight": 2.5}),
        ("RetinaNet", "loss_bbox", "L1Loss", {"loss_weight": 1.0}),
        # mmdetection 1.x, retinanet_r50_fpn: smoothl1_beta=0.11.
        ("RetinaNet", "loss_bbox", "SmoothL1Loss", {"loss_weight": 1.0, "beta": 0.11}),
        # mmdetection 2.x, libra_retinanet_r50_fpn: beta=0.11, by the formula of its code.
        (
            "RetinaNet",
            "loss_bbox",
            "BalancedL1Loss",
            {"loss_weight": 1.0, "beta": 0.11, "as_released": True},
        ),
        # mmdetection's faster-rcnn_r50_fpn_giou and _ciou.
        ("FasterRCNN", "loss_bbox", "GIoULoss", {"loss_weight": 10.0}),
        ("FasterRCNN", "loss_bbox", "CIoULoss", {"loss_weight": 12.0}),
        # torchvision's roi_heads.fastrcnn_loss and rpn.compute_loss: beta=1 / 9.
        ("FasterRCNN", "loss_bbox", "SmoothL1Loss", {"loss_weight": 1.0, "beta": 1 / 9}),
        ("FasterRCNN", "loss_rpn_bbox", "SmoothL1Loss", {"loss_weight": 1.0, "beta": 1 / 9}),
        # mmdetection's gfl_r50_fpn: GIoU 2, DFL 0.25.
        ("GFL", "loss_bbox", "GIoULoss", {"loss_weight": 2.0}),
        ("GFL", "loss_dfl", "DistributionFocalLoss", {"loss_weight": 0.25}),
        # Without an entry: the fallback for losses on deltas (MSE) or on boxes (GIoU in the RPN).
        ("FasterRCNN", "loss_bbox", "MSELoss", {"loss_weight": 1.0}),
        ("FasterRCNN", "loss_rpn_bbox", "GIoULoss", {"loss_weight": 10.0}),
        ("Another", "loss_bbox", "GIoULoss", {"loss_weight": 1.0}),
    ],
)
def test_a_name_gets_its_published_setting(table, slot, loss, added):
    assert complete(table, slot, loss)[0] == {"type": loss, **added}


@pytest.mark.parametrize(("table", "slot", "name"), ENTRIES)
def test_each_entry_builds_in_its_slot_and_has_a_source(table, slot, name):
    setting = SETTINGS[table][slot].losses[name]
    detector = DETECTORS[table]
    one = {slot: detector.slots[slot]}
    losses, sources = build_slot_losses(detector.__name__, one, {slot: name}, 3, table)
    built = losses[slot].params()
    assert built["loss_weight"] == setting.loss_weight
    assert {key: built[key] for key in setting.parameters} == setting.parameters
    assert sources[slot].endswith(setting.source) and setting.source


def test_the_tables_have_every_slot_of_every_detector():
    for table, detector in DETECTORS.items():
        assert SETTINGS[table].keys() == detector.slots.keys()


@pytest.mark.parametrize(("table", "slot"), SLOTS)
def test_every_loss_of_a_slot_has_a_fallback_there(table, slot):
    for info in losses_of_slot(DETECTORS[table], slot):
        config, source = complete(table, slot, info.config)
        assert config["loss_weight"] > 0
        assert "setting; 1;" not in source and not source.endswith("setting; 1")


@pytest.mark.parametrize(
    ("loss", "config", "source"),
    [
        (
            "SmoothL1Loss(beta=0.5)",
            {"type": "SmoothL1Loss", "beta": 0.5, "loss_weight": 1.0},
            "loss_weight 1: torchvision; beta given",
        ),
        (
            "SmoothL1Loss(loss_weight=2)",
            {"type": "SmoothL1Loss", "beta": 1 / 9, "loss_weight": 2},
            "beta 0.1111: torchvision; loss_weight given",
        ),
        (
            "SmoothL1Loss(loss_weight=2, beta=1)",
            {"type": "SmoothL1Loss", "beta": 1, "loss_weight": 2},
            "loss_weight, beta given",
        ),
        (
            # A wrapper gets the weight of the wrapped loss, where it would have no effect.
            "InnerIoU(FocalIoU(CIoULoss, gamma=1.0), ratio=0.7)",
            {
                "type": "InnerIoU",
                "loss": {"type": "FocalIoU", "loss": {"type": "CIoULoss"}, "gamma": 1.0},
                "ratio": 0.7,
                "loss_weight": 12.0,
            },
            "loss_weight 12: as FocalIoU, as CIoULoss, mmdet faster-rcnn_r50_fpn_ciou; 1911.08287; "
            "ratio given; FocalIoU: gamma given",
        ),
        (
            # Losses of a sum get weights and parameters; the sum has weight 1.
            "SumLoss(SmoothL1Loss, GIoULoss(loss_weight=3))",
            {
                "type": "SumLoss",
                "losses": [
                    {"type": "SmoothL1Loss", "loss_weight": 1.0, "beta": 1 / 9},
                    {"type": "GIoULoss", "loss_weight": 3},
                ],
                "loss_weight": 1.0,
            },
            "loss_weight 1: its losses have their own weights; SmoothL1Loss: loss_weight 1, "
            "beta 0.1111: torchvision; GIoULoss: loss_weight given",
        ),
        (
            # A product of published weights would not be a published weight.
            "ProductLoss(SmoothL1Loss, GIoULoss)",
            {
                "type": "ProductLoss",
                "losses": [{"type": "SmoothL1Loss", "beta": 1 / 9}, {"type": "GIoULoss"}],
                "loss_weight": 1.0,
            },
            "loss_weight 1: no published setting of a product; 1; SmoothL1Loss: beta 0.1111: "
            "torchvision",
        ),
    ],
)
def test_given_arguments_are_kept_and_wrapped_losses_are_completed(loss, config, source):
    got, got_source = complete("FasterRCNN", "loss_bbox", loss)
    assert got == config
    assert got_source == source
    assert complete("FasterRCNN", "loss_bbox", got)[0] == got
    build_loss(got)


def test_a_module_and_the_callers_config_are_not_changed():
    loss = L1Loss(loss_weight=7.0)
    one = {"loss_bbox": RetinaNet.slots["loss_bbox"]}
    losses, sources = build_slot_losses("RetinaNet", one, {"loss_bbox": loss}, 3)
    assert losses["loss_bbox"] is loss and loss.loss_weight == 7.0
    assert sources == {"loss_bbox": "built by the caller"}
    given = {"type": "SumLoss", "losses": [{"type": "L1Loss"}, "GIoULoss"]}
    complete("RetinaNet", "loss_bbox", given)
    assert given == {"type": "SumLoss", "losses": [{"type": "L1Loss"}, "GIoULoss"]}


def test_completing_a_config_draws_no_random_numbers(monkeypatch):
    class Drawing(L1Loss):
        def __init__(self, *, reduction="mean", loss_weight=1.0):
            super().__init__(reduction=reduction, loss_weight=loss_weight)
            torch.rand(1)

    monkeypatch.setitem(MODELS.module_dict, "Drawing", Drawing)
    torch.manual_seed(0)
    complete("RetinaNet", "loss_bbox", "Drawing")
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        ("GIuLoss", NotRegisteredError, "GIoULoss"),
        ("RetinaNet", ValueError, "RetinaNet is registered, but it is not a loss"),
        ("SmoothL1Loss(bta=1)", TypeError, "Did you mean 'beta'"),
        ("InnerIoU(CIoULoss(epps=1), ratio=0.7)", TypeError, "Did you mean 'eps'"),
        ("SmoothL1Loss:beta=1", ValueError, r"in parentheses: 'SmoothL1Loss\(beta=1\)'"),
    ],
)
def test_an_invalid_loss_is_refused(loss, error, message):
    with pytest.raises(error, match=message):
        complete("RetinaNet", "loss_bbox", loss)


def test_a_derived_detector_has_its_bases_settings_and_other_modules_have_none():
    class Mine(FCOS):
        pass

    assert table_of({"type": Mine}) == "FCOS"
    assert table_of({"type": Mine, "loss_dfl": "DistributionFocalLoss"}) == "GFL"
    assert table_of({"type": nn.Linear}) == "Linear"
    assert (
        complete("Linear", "loss_bbox", "GIoULoss")[1] == "loss_weight 1: no published setting; 1"
    )
