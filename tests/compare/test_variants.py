import pytest
from mmengine.config import Config

from det_losses.compare.variants import Variant, crossed, parse_variant, set_key, swept


def loss(name, weight=1.0, slot="loss_bbox"):
    config = {"type": name, "loss_weight": weight}
    return Variant(name, {f"model.{slot}": config}, "somewhere", {slot: name}, {"how": "published"})


def test_a_grid_has_every_pair_with_the_changes_of_both():
    cells = [loss("FocalLoss", slot="loss_cls"), loss("CrossEntropyLoss", slot="loss_cls")]
    grid = crossed([loss("L1Loss"), loss("GIoULoss")], cells)
    assert [variant.label for variant in grid] == [
        "L1Loss + FocalLoss",
        "L1Loss + CrossEntropyLoss",
        "GIoULoss + FocalLoss",
        "GIoULoss + CrossEntropyLoss",
    ]
    assert grid[1].factors == {"loss_bbox": "L1Loss", "loss_cls": "CrossEntropyLoss"}
    assert grid[1].changes["model.loss_cls"]["type"] == "CrossEntropyLoss"
    assert grid[1].changes["model.loss_bbox"]["type"] == "L1Loss"


def test_a_sweep_multiplies_the_loss_weight_and_keeps_the_name_at_one():
    found = swept([loss("GIoULoss", 2.5)], "loss_bbox", (0.5, 1, 2))
    assert [variant.label for variant in found] == ["GIoULoss x0.5", "GIoULoss", "GIoULoss x2"]
    assert [v.loss("loss_bbox")["loss_weight"] for v in found] == [1.25, 2.5, 5.0]
    assert [v.weight["how"] for v in found] == ["swept", "published", "swept"]


def test_a_loss_replaces_the_whole_loss_of_the_config(cfg):
    cfg.model.loss_bbox = {"type": "SmoothL1Loss", "beta": 0.1}
    own = loss("GIoULoss").apply(cfg)
    assert own.model.loss_bbox == {"type": "GIoULoss", "loss_weight": 1.0}
    assert cfg.model.loss_bbox == {"type": "SmoothL1Loss", "beta": 0.1}


def test_keys_reach_into_lists_and_make_what_is_missing():
    cfg = Config({"param_scheduler": [{"end": 5}], "model": {}})
    set_key(cfg, "param_scheduler.0.end", 7)
    set_key(cfg, "model.head.norm", "GN")
    assert cfg.param_scheduler[0].end == 7
    assert cfg.model.head.norm == "GN"


def test_a_whole_variant_names_slots_with_losses_and_any_other_key(cfg):
    cfg.optim_wrapper = {"optimizer": {"lr": 0.1}}
    text = "mine:loss_bbox=SmoothL1Loss(beta=0.5,loss_weight=2),optim_wrapper.optimizer.lr=1e-3"
    variant = parse_variant(cfg, text, [])
    assert variant.label == "mine"
    assert variant.changes == {
        "model.loss_bbox": {"type": "SmoothL1Loss", "loss_weight": 2, "beta": 0.5},
        "optim_wrapper.optimizer.lr": 1e-3,
    }


def test_a_whole_variant_beside_losses_says_what_it_has_in_their_slot(cfg):
    variant = parse_variant(cfg, "slow:model.num_convs=1", ["loss_bbox"])
    assert variant.changes == {"model.num_convs": 1, "model.loss_bbox": {"type": "L1Loss"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (":a=1", "expected NAME:KEY=VALUE"),
        ("x:model.num_convs", "expected KEY=VALUE,KEY=VALUE with each key once"),
        ("x:model.num_convs=1,model.num_convs=2", "with each key once"),
        ("x:modle.num_convs=1", "the config has no 'modle.num_convs'"),
        ("x:model.num_convs.more=1", "goes into 2, which has no keys"),
        ("x:loss_bbox=SmoothL1Loss(bta=1)", "Did you mean 'beta'?"),
    ],
)
def test_a_variant_that_cannot_be_read_is_refused(cfg, text, message):
    with pytest.raises((ValueError, TypeError)) as info:
        parse_variant(cfg, text, [])
    assert message in str(info.value)
