import re

import pytest
from mmengine.config import Config

from det_losses.compare.plan import Plan, run_config
from det_losses.compare.variants import Variant
from det_losses.compare.weights import NamedLoss


def loss(label, weight=1.0):
    config = {"type": label.partition(":")[0], "loss_weight": weight}
    return Variant.of_loss("loss_bbox", NamedLoss(label, config, "somewhere"))


def test_every_seed_trains_all_losses_before_the_next(plan, tmp_path):
    titles = [run.title for run in plan.runs(tmp_path)]
    assert titles == [
        "SmoothL1Loss seed 0",
        "GIoULoss seed 0",
        "SmoothL1Loss seed 1",
        "GIoULoss seed 1",
    ]
    assert plan.runs(tmp_path)[1].work_dir == tmp_path / "runs" / "GIoULoss" / "seed_0"


def test_labels_that_differ_only_in_signs_get_directories_of_their_own(cfg, tmp_path):
    labels = ["A:beta=1", "A:beta=(1)", "A", "A:beta='../../x'"]
    runs = Plan.of(cfg, ["loss_bbox"], [loss(label) for label in labels], [0]).runs(tmp_path)
    folders = {run.work_dir.parent.name for run in runs}
    assert len(folders) == len(labels)
    assert all(re.fullmatch(r"[\w.=-]+", folder) for folder in folders)


def test_a_stored_plan_comes_back(plan, tmp_path):
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan
    assert Plan.load(tmp_path / "elsewhere") is None


def test_the_hash_knows_the_config_but_neither_slot_nor_seed(plan, cfg):
    cfg.model.loss_bbox.type = "EIoULoss"
    cfg.randomness.seed = 9
    cfg.work_dir = "elsewhere"
    assert Plan.of(cfg, ["loss_bbox"], [loss("A")], [3]).hash == plan.hash
    cfg.model.num_convs = 3
    assert Plan.of(cfg, ["loss_bbox"], [loss("A")], [3]).hash != plan.hash


def test_losses_and_seeds_are_added_to_a_stored_plan(plan, cfg, tmp_path):
    asked = Plan.of(cfg, ["loss_bbox"], [loss("EIoULoss")], [2, 0])
    joined = asked.joined(plan, tmp_path)
    assert [each.label for each in joined.variants] == ["SmoothL1Loss", "GIoULoss", "EIoULoss"]
    assert joined.seeds == [0, 1, 2]


def test_another_config_in_the_same_directory_is_refused(plan, cfg, tmp_path):
    cfg.model.num_convs = 3
    asked = Plan.of(cfg, ["loss_bbox"], plan.variants, [0])
    with pytest.raises(ValueError, match=r"another config \(model.num_convs: 2 -> 3\)"):
        asked.joined(plan, tmp_path)


def test_another_component_in_the_same_directory_is_refused(plan, cfg, tmp_path):
    asked = Plan.of(cfg, ["loss_cls"], plan.variants, [0])
    with pytest.raises(ValueError, match=r"components\.0: 'loss_bbox' -> 'loss_cls'"):
        asked.joined(plan, tmp_path)


def test_a_loss_that_changed_in_the_same_directory_is_refused(plan, cfg, tmp_path):
    asked = Plan.of(cfg, ["loss_bbox"], [loss("GIoULoss", 2.0)], [0])
    message = r"another GIoULoss \(model.loss_bbox.loss_weight: 2.5 -> 2.0\)"
    with pytest.raises(ValueError, match=message):
        asked.joined(plan, tmp_path)


@pytest.mark.parametrize(
    ("labels", "seeds", "message"),
    [(["A", "A"], [0], "the comparison names A twice"), (["A"], [1, 1], "--seeds names 1 twice")],
)
def test_what_is_named_twice_is_refused(cfg, labels, seeds, message):
    with pytest.raises(ValueError, match=message):
        Plan.of(cfg, ["loss_bbox"], [loss(label) for label in labels], seeds)


def test_only_loss_seed_and_result_file_differ_between_runs(plan, cfg, tmp_path):
    first, second = (run_config(cfg, run) for run in plan.runs(tmp_path)[1:3])
    assert first.model.loss_bbox == {"type": "GIoULoss", "loss_weight": 2.5}
    assert first.randomness == {"seed": 0, "deterministic": False}
    assert first.val_evaluator.out_file == "detections.json"
    assert second.model.loss_bbox == {"type": "SmoothL1Loss", "loss_weight": 1.0, "beta": 0.11}
    assert second.randomness.seed == 1
    assert first.model.num_convs == second.model.num_convs == 2
    assert "out_file" not in cfg.val_evaluator


def test_one_of_several_metrics_gets_the_result_file(plan, cfg, tmp_path):
    cfg.val_evaluator = [{"type": "Other"}, {"type": "det_losses.CocoMetric"}]
    own = run_config(Config(cfg.to_dict()), plan.runs(tmp_path)[0])
    assert own.val_evaluator == [
        {"type": "Other"},
        {"type": "det_losses.CocoMetric", "out_file": "detections.json"},
    ]
