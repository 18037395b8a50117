import copy
import json
import re
from hashlib import sha256

import pytest
from mmengine.config import Config

from det_losses.comparison.plan import Plan
from det_losses.comparison.prepare import with_weights
from det_losses.comparison.variants import Selection, Variant


def rows(plan, root):
    return [run.row(root) for run in plan.runs(root)]


def test_runs_are_ordered_by_seed(plan, tmp_path):
    titles = [run.title for run in plan.runs(tmp_path)]
    assert titles == [
        "SmoothL1Loss seed 0",
        "GIoULoss seed 0",
        "SmoothL1Loss seed 1",
        "GIoULoss seed 1",
    ]
    assert plan.runs(tmp_path)[1].work_dir == tmp_path / "runs" / "GIoULoss" / "seed_0"


def test_labels_that_differ_only_in_signs_get_directories_of_their_own(cfg, variant, tmp_path):
    labels = ["A(beta=1)", "A(beta=(1))", "A", "A(beta='../../x')"]
    runs = Plan.of(cfg, ["loss_bbox"], [variant(label) for label in labels], [0]).runs(tmp_path)
    folders = {run.work_dir.parent.name for run in runs}
    assert len(folders) == len(labels)
    assert all(re.fullmatch(r"[\w.=-]+", folder) for folder in folders)


def test_a_stored_plan_is_loaded_unchanged(plan, tmp_path):
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan
    assert Plan.load(tmp_path / "elsewhere") is None


def test_the_hash_depends_on_the_config_but_not_on_slot_and_seed(plan, cfg, variant):
    cfg.model.loss_bbox.type = "EIoULoss"
    cfg.randomness.seed = 9
    cfg.work_dir = "elsewhere"
    assert Plan.of(cfg, ["loss_bbox"], [variant("A")], [3]).hash == plan.hash
    cfg.model.num_convs = 3
    assert Plan.of(cfg, ["loss_bbox"], [variant("A")], [3]).hash != plan.hash


def test_a_stored_plan_is_extended_by_losses_and_seeds(plan, cfg, variant, tmp_path):
    asked = Plan.of(cfg, ["loss_bbox"], [variant("EIoULoss")], [2, 0])
    joined = asked.added_to(plan, tmp_path)
    assert [each.label for each in joined.variants] == ["SmoothL1Loss", "GIoULoss", "EIoULoss"]
    assert joined.seeds == [0, 1, 2]
    # Each variant has the seeds that a command asked for.
    seeds = {v.label: joined.seeds_of(v.label) for v in joined.variants}
    assert seeds == {"SmoothL1Loss": [0, 1], "GIoULoss": [0, 1], "EIoULoss": [0, 2]}
    assert len(joined.runs(tmp_path)) == 6


def test_seeds_of_single_variants_are_stored_until_all_have_them(plan, cfg, tmp_path):
    plan.save(tmp_path)
    assert "own_seeds" not in (tmp_path / "plan.json").read_text()  # as earlier versions wrote it
    further = Plan.of(cfg, ["loss_bbox"], plan.variants[1:], [2]).added_to(plan, tmp_path)
    further.save(tmp_path)
    assert Plan.load(tmp_path) == further
    assert further.own_seeds == {"SmoothL1Loss": [0, 1]}
    all_of_them = Plan.of(cfg, ["loss_bbox"], plan.variants, [0, 1, 2])
    assert all_of_them.added_to(further, tmp_path).own_seeds == {}


def test_another_config_in_the_same_directory_is_refused(plan, cfg, tmp_path):
    cfg.model.num_convs = 3
    asked = Plan.of(cfg, ["loss_bbox"], plan.variants, [0])
    with pytest.raises(ValueError, match=r"a different config \(model.num_convs: 2 -> 3\)"):
        asked.added_to(plan, tmp_path)


def test_another_component_in_the_same_directory_is_refused(plan, cfg, tmp_path):
    asked = Plan.of(cfg, ["loss_cls"], plan.variants, [0])
    with pytest.raises(ValueError, match=r"components\.0: 'loss_bbox' -> 'loss_cls'"):
        asked.added_to(plan, tmp_path)


def test_a_loss_that_changed_in_the_same_directory_is_refused(plan, cfg, variant, tmp_path):
    asked = Plan.of(cfg, ["loss_bbox"], [variant("GIoULoss", 2.0)], [0])
    message = r"a different GIoULoss \(model.loss_bbox.loss_weight: 2.5 -> 2.0\)"
    with pytest.raises(ValueError, match=message):
        asked.added_to(plan, tmp_path)


@pytest.mark.parametrize(
    ("labels", "seeds", "message"),
    [
        (["A", "A"], [0], "the comparison contains A twice"),
        (["A"], [1, 1], "--seeds contains 1 twice"),
    ],
)
def test_repeated_labels_and_seeds_are_errors(cfg, variant, labels, seeds, message):
    with pytest.raises(ValueError, match=message):
        Plan.of(cfg, ["loss_bbox"], [variant(label) for label in labels], seeds)


def test_only_loss_seed_and_result_file_differ_between_runs(plan, cfg, tmp_path):
    first, second = (run.config(cfg) for run in plan.runs(tmp_path)[1:3])
    assert first.model.loss_bbox == {"type": "GIoULoss", "loss_weight": 2.5}
    assert first.randomness == {"seed": 0, "deterministic": False}
    assert first.val_evaluator.out_file == "detections.json"
    assert second.model.loss_bbox == {"type": "SmoothL1Loss", "loss_weight": 1.0, "beta": 0.11}
    assert second.randomness.seed == 1
    assert first.model.num_convs == second.model.num_convs == 2
    assert "out_file" not in cfg.val_evaluator


def test_one_of_several_metrics_gets_the_result_file(plan, cfg, tmp_path):
    cfg.val_evaluator = [{"type": "Other"}, {"type": "det_losses.CocoMetric"}]
    own = plan.runs(tmp_path)[0].config(Config(cfg.to_dict()))
    assert own.val_evaluator == [
        {"type": "Other"},
        {"type": "det_losses.CocoMetric", "out_file": "detections.json"},
    ]


def test_each_run_has_a_row_with_its_status(plan, tmp_path, finish):
    runs = plan.runs(tmp_path)
    finish(runs[0], AP=0.25, **{"AP/cat": 0.25})
    runs[1].set_status("failed", "it broke")
    runs[2].set_status("interrupted")
    found = rows(plan, tmp_path)
    assert [row["status"] for row in found] == ["done", "failed", "interrupted", "pending"]
    assert found[0]["metrics"]["AP"] == 0.25
    assert found[0]["train_seconds"] == 61.0
    assert found[0]["work_dir"] == "runs/SmoothL1Loss/seed_0"
    assert found[0]["variant"] == "SmoothL1Loss"
    assert found[0]["proof"]["loss_bbox"]["calls"] == 7
    assert found[1]["error"] == "it broke"
    assert found[3]["metrics"]["AP"] is None


def test_a_run_that_failed_before_and_is_finished_now_is_done(plan, tmp_path, finish):
    run = plan.runs(tmp_path)[0]
    run.set_status("failed", "it broke")
    finish(run)
    row = run.row(tmp_path)
    assert (row["status"], row["error"]) == ("done", None)


def proof(**changes):
    own = {"loss": "GIoULoss(eps=1e-07)", "calls": 3, "gradient": True}
    return {"proof": {"loss_bbox": {**own, **changes}}}


def earlier_proof(**probe):
    """As runs of earlier versions recorded it: differences to the gradient of the named loss."""
    return {"proof": {"loss_bbox": {"loss": "GIoULoss(eps=1e-07)", "calls": 3, "probe": probe}}}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "no proof that loss_bbox was GIoULoss"),
        (proof(loss="L1Loss()"), "loss_bbox was L1Loss(), not GIoULoss as planned"),
        (proof(calls=0), "loss_bbox did not train with GIoULoss"),
        (earlier_proof(start=0, end=0.5), "loss_bbox did not train with GIoULoss"),
        (proof(), None),
        (proof(gradient=False), None),
        (earlier_proof(start=None), None),
        (earlier_proof(start=1e-9, end=None), None),
    ],
)
def test_a_run_without_the_record_of_its_loss_is_failed(plan, tmp_path, finish, record, message):
    run = plan.runs(tmp_path)[1]
    finish(run)
    file = run.work_dir / "metrics.json"
    stored = json.loads(file.read_text())
    del stored["proof"]
    file.write_text(json.dumps({**stored, **record}))
    row = run.row(tmp_path)
    if message is None:
        assert (row["status"], row["error"]) == ("done", None)
    else:
        assert row["status"] == "failed"
        assert message in row["error"]


def test_a_changed_file_of_weights_is_refused(cfg, variant, tmp_path):
    file = tmp_path / "start.pth"
    plans = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        own = copy.deepcopy(cfg)
        own.load_from = str(file)
        selection = Selection("loss_bbox", ["loss_bbox"], [variant("A"), variant("B")], (), "A")
        own, selection = with_weights(own, selection)
        assert own.load_from is None and own.model.weights.file == str(file)
        plans.append(Plan.of(own, ["loss_bbox"], selection.variants, [0]))
    stored, asked = plans
    assert stored.config["model"]["weights"]["sha256"] == sha256(b"one").hexdigest()
    assert stored.added_to(stored, tmp_path).hash == stored.hash
    with pytest.raises(ValueError, match=r"weights\.sha256: .*file of the weights was changed"):
        asked.added_to(stored, tmp_path)


def test_the_weights_of_a_variant_have_a_hash_too(cfg, tmp_path):
    file = tmp_path / "start.pth"
    file.write_bytes(b"one")
    changes = ({"model.weights": str(file)}, {"load_from": str(file)}, {"model.weights": None})
    variants = [Variant(str(i), each) for i, each in enumerate(changes)]
    cfg.model.weights = str(file)
    _, selection = with_weights(cfg, Selection("loss_bbox", [], variants, (), "0"))
    pinned = {"file": str(file), "sha256": sha256(b"one").hexdigest()}
    assert [v.changes for v in selection.variants] == [
        {"model.weights": pinned},
        {"model.weights": pinned},
        {"model.weights": None},
    ]
