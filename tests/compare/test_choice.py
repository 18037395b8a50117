import argparse
import json

import pytest

from det_losses.compare import choice as module
from det_losses.compare.choice import Choice, matched
from det_losses.compare.matched_weights import MatchedLoss, Matching


def args(**given):
    defaults = dict(
        losses=[], component="loss_bbox", cross=None, variant=[], baseline=None, weights=[]
    )
    return argparse.Namespace(**{**defaults, "match_weights": None, **given})


def test_losses_get_the_weights_of_the_table(cfg):
    choice = Choice.of(cfg, args(losses=["L1Loss", "GIoULoss"]))
    assert choice.components == ["loss_bbox"]
    assert choice.baseline == "L1Loss"
    assert [v.loss("loss_bbox")["loss_weight"] for v in choice.variants] == [1.0, 2.5]
    assert choice.name == "loss_bbox"


def test_a_grid_crosses_two_components(cfg):
    losses = ["L1Loss", "GIoULoss"]
    cross = ["loss_cls", "FocalLoss", "BinaryCrossEntropyLoss"]
    choice = Choice.of(cfg, args(losses=losses, cross=cross, baseline="GIoULoss + FocalLoss"))
    assert choice.components == ["loss_bbox", "loss_cls"]
    assert len(choice.variants) == 4
    assert choice.factor_of_baseline == "GIoULoss"


def test_the_baseline_of_a_sweep_is_the_weight_itself(cfg):
    choice = Choice.of(cfg, args(losses=["GIoULoss"], weights=[0.5, 1.0, 2.0]))
    assert next(v.label for v in choice.swept(choice.variants)) == "GIoULoss x0.5"
    assert choice.baseline == "GIoULoss"
    choice = Choice.of(cfg, args(losses=["GIoULoss"], weights=[0.5, 2.0]))
    assert choice.baseline == "GIoULoss x0.5"


def test_whole_variants_need_no_component(cfg):
    choice = Choice.of(cfg, args(variant=["a:loss_bbox=L1Loss", "b:loss_bbox=GIoULoss"]))
    assert choice.components == []
    assert choice.name == "variants"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give --losses or --variant"),
        ({"losses": ["L1Loss"], "component": "loss_box"}, "RetinaNet has the losses loss_cls"),
        ({"losses": ["L1Loss"], "cross": ["loss_cls"]}, "--cross needs --losses, a component"),
        ({"losses": ["L1Loss"], "cross": ["loss_x", "A"]}, "--cross loss_x: RetinaNet has"),
        ({"losses": ["L1Loss"], "cross": ["loss_bbox", "GIoULoss"]}, "name another component"),
        ({"losses": ["L1Loss"], "baseline": "L2"}, "--baseline L2: compared are L1Loss"),
        ({"variant": ["a:loss_bbox=L1Loss"], "weights": [2.0]}, "--weights sets the loss weights"),
        (
            {"variant": ["a:loss_bbox=L1Loss"], "match_weights": "gradient"},
            "--match-weights sets the loss weights",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(cfg, given, message):
    with pytest.raises(ValueError) as info:
        Choice.of(cfg, args(**given))
    assert message in str(info.value)


@pytest.fixture
def matching(monkeypatch):
    """A matching that is known and trains nothing; gives the losses of each call."""
    calls = []

    def fake(cfg, slot, losses, baseline, *, work_dir):
        calls.append(list(losses))
        found = {
            label: MatchedLoss(dict(config), config["loss_weight"], 4.0, 0.5, 1.0, 0.01)
            for label, config in losses.items()
        }
        return Matching(slot, baseline, 24, 100, 0, found)

    monkeypatch.setattr(module, "match_weights", fake)
    return calls


def test_matched_weights_are_kept_for_the_next_command(cfg, tmp_path, matching):
    choice = Choice.of(cfg, args(losses=["L1Loss", "GIoULoss"], match_weights="gradient"))
    variants = matched(cfg, choice, tmp_path)
    assert [v.loss("loss_bbox")["loss_weight"] for v in variants] == [4.0, 4.0]
    assert variants[1].weight["how"] == "matched"
    assert variants[1].weight["gradient_norm"] == pytest.approx(0.5 * 4.0 / 2.5)
    assert "as L1Loss's" in variants[1].source
    assert matched(cfg, choice, tmp_path) == variants
    more = Choice.of(cfg, args(losses=["L1Loss", "DIoULoss"], match_weights="gradient"))
    matched(cfg, more, tmp_path)
    assert matching == [["L1Loss", "GIoULoss"], ["L1Loss", "DIoULoss"]]
    assert set(json.loads((tmp_path / "matched_weights.json").read_text())["losses"]) == {
        "L1Loss",
        "GIoULoss",
        "DIoULoss",
    }


def test_weights_matched_to_another_baseline_are_not_mixed(cfg, tmp_path, matching):
    matched(cfg, Choice.of(cfg, args(losses=["L1Loss", "GIoULoss"])), tmp_path)
    other = Choice.of(cfg, args(losses=["L1Loss", "GIoULoss"], baseline="GIoULoss"))
    with pytest.raises(ValueError, match="were matched to L1Loss, not those of loss_bbox to GIoU"):
        matched(cfg, other, tmp_path)
