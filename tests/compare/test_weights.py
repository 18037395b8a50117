import pytest

from det_losses import list_losses
from det_losses.compare.weights import loss_config, parse_loss, shipped_table
from det_losses.models.slots import build_slot_losses
from det_losses.registry import MODELS, NotRegisteredError, find

SLOTS = [(d, s) for d in ("RetinaNet", "FasterRCNN", "FCOS") for s in find(MODELS, d).slots]
ENTRIES = [
    (detector, slot, name, entry)
    for detector, slots in shipped_table().items()
    for slot, entries in slots.items()
    for name, entry in entries.items()
    if name != "fallback"
]


@pytest.mark.parametrize(
    ("detector", "slot", "name", "expected"),
    [
        # 2101.08158: weight 2.5 for IoU-type losses in RetinaNet
        ("RetinaNet", "loss_bbox", "EIoULoss", {"loss_weight": 2.5}),
        ("RetinaNet", "loss_bbox", "L1Loss", {"loss_weight": 1.0}),
        # mmdet's faster-rcnn_r50_fpn_giou and _ciou
        ("FasterRCNN", "loss_bbox", "GIoULoss", {"loss_weight": 10.0}),
        ("FasterRCNN", "loss_bbox", "CIoULoss", {"loss_weight": 12.0}),
        # torchvision's roi_heads.fastrcnn_loss and rpn.compute_loss: beta=1 / 9
        ("FasterRCNN", "loss_bbox", "SmoothL1Loss", {"loss_weight": 1.0, "beta": 1 / 9}),
        ("FasterRCNN", "loss_rpn_bbox", "SmoothL1Loss", {"loss_weight": 1.0, "beta": 1 / 9}),
        ("RetinaNet", "loss_cls", "FocalLoss", {"loss_weight": 1.0}),
    ],
)
def test_published_settings(detector, slot, name, expected):
    config, source = loss_config({}, detector, slot, name)
    assert config == {"type": name, **expected}
    assert source


def test_the_table_has_every_slot_of_every_detector():
    assert {(d, s) for d, slots in shipped_table().items() for s in slots} == set(SLOTS)


@pytest.mark.parametrize(("detector", "slot", "name", "entry"), ENTRIES)
def test_each_entry_builds_in_its_slot_and_says_where_it_is_from(detector, slot, name, entry):
    config, source = loss_config({}, detector, slot, name)
    one = {slot: find(MODELS, detector).slots[slot]}
    built = build_slot_losses(detector, one, {slot: config}, 3)[slot]
    assert built.loss_weight == entry["loss_weight"]
    assert source == entry["source"]


@pytest.mark.parametrize(("detector", "slot"), SLOTS)
def test_every_loss_gets_a_weight_in_every_slot_of_its_kind(detector, slot):
    taken = find(MODELS, detector).slots[slot]
    for info in list_losses():
        if info.kind == taken.kind and info.activation in (None, *taken.activations):
            config, source = loss_config({}, detector, slot, info.name, info.config)
            assert config["loss_weight"] > 0
            assert "no table" not in source


def test_a_loss_without_a_line_falls_back_by_its_space():
    # MSE in the RoI head has no line: an l_n loss on deltas, weight 1 as all of them.
    config, source = loss_config({}, "FasterRCNN", "loss_bbox", "MSELoss")
    assert config == {"type": "MSELoss", "loss_weight": 1.0}
    assert source.startswith("no published setting")
    # GIoU in the RPN has none: decoded, 10.
    config, _ = loss_config({}, "FasterRCNN", "loss_rpn_bbox", "GIoULoss")
    assert config == {"type": "GIoULoss", "loss_weight": 10.0}


def test_a_configs_own_table_comes_first():
    own = {"loss_weights": {"RetinaNet": {"loss_bbox": {"GIoULoss": {"loss_weight": 7.0}}}}}
    assert loss_config(own, "RetinaNet", "loss_bbox", "GIoULoss") == (
        {"type": "GIoULoss", "loss_weight": 7.0},
        "the config's loss_weights",
    )
    assert loss_config(own, "RetinaNet", "loss_bbox", "DIoULoss")[0]["loss_weight"] == 2.5


def test_another_detector_gets_weight_one_and_says_so():
    config, source = loss_config({}, "Another", "loss_bbox", "GIoULoss")
    assert (config["loss_weight"], source) == (1.0, "no table for loss_bbox of Another; 1")


def test_parameters_of_the_command_line_come_over_the_table():
    loss = parse_loss({}, "FasterRCNN", "loss_bbox", "SmoothL1Loss:beta=0.5")
    assert loss.config == {"type": "SmoothL1Loss", "loss_weight": 1.0, "beta": 0.5}
    assert loss.source == "beta: given by the user; weight: torchvision"
    loss = parse_loss({}, "FasterRCNN", "loss_bbox", "SmoothL1Loss:beta=0.5,loss_weight=2")
    assert loss.config["loss_weight"] == 2
    assert loss.source == "beta, loss_weight: given by the user"
    assert loss.label == "SmoothL1Loss:beta=0.5,loss_weight=2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SmoothL1Loss:bta=1", "has no parameter 'bta'. Did you mean 'beta'?"),
        ("SmoothL1Loss:zzz=1", "has no parameter 'zzz'. It has "),
        ("SmoothL1Loss:beta", "after the colon expected key=value,key=value, got 'beta'"),
        ("RetinaNet", "RetinaNet is registered, but it is no loss"),
    ],
)
def test_a_text_that_names_no_loss_is_refused(text, message):
    with pytest.raises(ValueError) as info:
        parse_loss({}, "RetinaNet", "loss_bbox", text)
    assert message in str(info.value)


def test_a_misspelt_name_gets_the_nearest():
    with pytest.raises(NotRegisteredError, match="GIoULoss"):
        parse_loss({}, "RetinaNet", "loss_bbox", "GIuLoss")


def test_a_tuple_reads_back_as_it_was_planned():
    text = "CrossEntropyLoss:class_weight=(1, 2)"
    loss = parse_loss({}, "FasterRCNN", "loss_cls", text)
    assert loss.config["class_weight"] == [1, 2]


def test_a_wrapper_without_a_line_gets_the_weight_of_the_loss_that_it_wraps():
    text = "InnerIoU(FocalIoU(CIoULoss, gamma=1.0), ratio=0.7)"
    loss = parse_loss({}, "FasterRCNN", "loss_bbox", text)
    assert loss.label == text
    assert loss.config == {
        "type": "InnerIoU",
        "loss_weight": 12.0,
        "loss": {"type": "FocalIoU", "loss": {"type": "CIoULoss"}, "gamma": 1.0},
        "ratio": 0.7,
    }
    assert "weight: mmdet faster-rcnn_r50_fpn_ciou" in loss.source


def test_a_sum_has_weight_one_because_its_losses_have_their_own():
    text = "SumLoss(L1Loss, GIoULoss(loss_weight=2.0))"
    loss = parse_loss({}, "RetinaNet", "loss_bbox", text)
    assert loss.config["loss_weight"] == 1.0
    assert loss.config["losses"] == [{"type": "L1Loss"}, {"type": "GIoULoss", "loss_weight": 2.0}]


def test_an_expression_that_cannot_be_read_is_quoted():
    with pytest.raises(ValueError, match=r"loss 'InnerIoU\(CIoULoss': .*never closed"):
        parse_loss({}, "RetinaNet", "loss_bbox", "InnerIoU(CIoULoss")
