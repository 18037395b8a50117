import pytest
from mmengine.config import Config

from det_losses.comparison.variants import config_variant, select, set_key, sweep


def test_losses_are_completed_with_the_published_settings_of_their_slot(cfg):
    selection = select(cfg, ["L1Loss", "GIoULoss", " SmoothL1Loss(loss_weight=2) "])
    assert selection.components == ["loss_bbox"]
    assert selection.baseline == "L1Loss"
    published, given = selection.variants[1:]
    # 2101.08158: weight 2.5 for IoU-type losses in RetinaNet.
    assert published.changes == {"model.loss_bbox": {"type": "GIoULoss", "loss_weight": 2.5}}
    assert "2101.08158" in published.source
    assert published.weight == {"how": "published", "multiple": 1.0}
    # The label is the text; mmdetection's RetinaNet has beta 0.11.
    assert given.label == "SmoothL1Loss(loss_weight=2)"
    assert given.loss("loss_bbox") == {"type": "SmoothL1Loss", "loss_weight": 2, "beta": 0.11}
    assert given.weight["how"] == "given"


def test_a_grid_has_every_pair_with_the_changes_of_both(cfg):
    cross = ["loss_cls", "FocalLoss", "CrossEntropyLoss"]
    selection = select(
        cfg, ["L1Loss", "GIoULoss"], cross=cross, baseline="GIoULoss + CrossEntropyLoss"
    )
    assert selection.components == ["loss_bbox", "loss_cls"]
    assert selection.baseline_loss == "GIoULoss"
    found = selection.variants
    assert [variant.label for variant in found] == [
        "L1Loss + FocalLoss",
        "L1Loss + CrossEntropyLoss",
        "GIoULoss + FocalLoss",
        "GIoULoss + CrossEntropyLoss",
    ]
    assert found[1].factors == {"loss_bbox": "L1Loss", "loss_cls": "CrossEntropyLoss"}
    assert found[1].changes["model.loss_cls"]["type"] == "CrossEntropyLoss"
    assert found[1].changes["model.loss_bbox"]["type"] == "L1Loss"
    assert found[1].source.startswith("L1Loss: loss_weight 1: ")


def test_the_setting_of_a_loss_may_depend_on_the_other_loss_of_the_grid(cfg):
    # FCOS with distributions for the sides is GFL, in which GIoU has weight 2 (2006.04388).
    cfg.model.type = "FCOS"
    cross = ["loss_dfl", "DistributionFocalLoss"]
    assert select(cfg, ["GIoULoss"]).variants[0].loss("loss_bbox")["loss_weight"] == 1.0
    together = select(cfg, ["GIoULoss"], cross=cross).variants[0]
    assert together.loss("loss_bbox")["loss_weight"] == 2.0
    whole = config_variant(cfg, "a:loss_bbox=GIoULoss,loss_dfl=DistributionFocalLoss", [])
    assert whole.loss("loss_bbox")["loss_weight"] == 2.0


def test_the_baseline_of_a_sweep_is_the_weight_itself(cfg):
    selection = select(cfg, ["GIoULoss"], multiples=[0.5, 1.0, 2.0])
    assert selection.swept(selection.variants)[0].label == "GIoULoss x0.5"
    assert selection.baseline == "GIoULoss"
    assert select(cfg, ["GIoULoss"], multiples=[0.5, 2.0]).baseline == "GIoULoss x0.5"


def test_config_variants_need_no_component(cfg):
    selection = select(cfg, config_variants=["a:loss_bbox=L1Loss", "b:loss_bbox=GIoULoss"])
    assert selection.components == []
    assert [variant.label for variant in selection.variants] == ["a", "b"]


@pytest.mark.parametrize(
    ("losses", "options", "message"),
    [
        ([], {}, "give --losses or --variant"),
        (["L1Loss"], {"component": "loss_box"}, "--component loss_box: RetinaNet has the slots"),
        (["L1Loss"], {"cross": ["loss_cls"]}, "--cross requires --losses, a component"),
        (["L1Loss"], {"cross": ["loss_x", "A"]}, "--cross loss_x: RetinaNet has"),
        (["L1Loss"], {"cross": ["loss_bbox", "GIoULoss"]}, "give a slot other than"),
        (["L1Loss"], {"baseline": "L2"}, "--baseline L2: the variants are L1Loss"),
        (["L1Loss:beta=1"], {}, "parameters go in parentheses: 'L1Loss(beta=1)'"),
        (
            [],
            {"config_variants": ["a:loss_bbox=L1Loss"], "multiples": [2.0]},
            "--weights sets the loss wei",
        ),
        (
            [],
            {"config_variants": ["a:loss_bbox=L1Loss"], "matched": True},
            "--match-weights sets the loss",
        ),
    ],
)
def test_options_that_exclude_each_other_are_refused(cfg, losses, options, message):
    with pytest.raises(ValueError) as info:
        select(cfg, losses, **options)
    assert message in str(info.value)


def test_a_model_without_slots_is_refused(cfg):
    cfg.model.type = "ResNetFPN"
    with pytest.raises(ValueError, match="ResNetFPN is not a detector"):
        select(cfg, ["L1Loss"])


def test_a_tuple_is_stored_as_a_list(cfg):
    variant = select(cfg, ["CrossEntropyLoss(class_weight=(1, 2))"], "loss_cls").variants[0]
    assert variant.loss("loss_cls")["class_weight"] == [1, 2]


def test_a_sweep_multiplies_the_loss_weight_and_keeps_the_label_at_one(variant):
    found = sweep([variant("GIoULoss", 2.5)], "loss_bbox", (0.5, 1, 2))
    assert [each.label for each in found] == ["GIoULoss x0.5", "GIoULoss", "GIoULoss x2"]
    assert [each.loss("loss_bbox")["loss_weight"] for each in found] == [1.25, 2.5, 5.0]
    assert [each.weight["how"] for each in found] == ["swept", "published", "swept"]


def test_a_loss_replaces_the_whole_loss_of_the_config(cfg, variant):
    cfg.model.loss_bbox = {"type": "SmoothL1Loss", "beta": 0.1}
    own = variant("GIoULoss").apply(cfg)
    assert own.model.loss_bbox == {"type": "GIoULoss", "loss_weight": 1.0}
    assert cfg.model.loss_bbox == {"type": "SmoothL1Loss", "beta": 0.1}


def test_keys_reach_into_lists_and_make_what_is_missing():
    cfg = Config({"param_scheduler": [{"end": 5}], "model": {}})
    set_key(cfg, "param_scheduler.0.end", 7)
    set_key(cfg, "model.head.norm", "GN")
    assert cfg.param_scheduler[0].end == 7
    assert cfg.model.head.norm == "GN"


@pytest.mark.parametrize("key", ["loss_bbox", "model.loss_bbox"])
def test_a_config_variant_sets_losses_and_config_keys(cfg, key):
    cfg.optim_wrapper = {"optimizer": {"lr": 0.1}}
    text = f"mine:{key}=SmoothL1Loss(beta=0.5, loss_weight=2),optim_wrapper.optimizer.lr=1e-3"
    found = config_variant(cfg, text, [])
    assert found.label == "mine"
    assert found.changes == {
        "model.loss_bbox": {"type": "SmoothL1Loss", "beta": 0.5, "loss_weight": 2},
        "optim_wrapper.optimizer.lr": 1e-3,
    }


def test_a_config_variant_keeps_the_loss_of_the_config(cfg):
    found = config_variant(cfg, "slow:model.num_convs=1", ["loss_bbox"])
    own = found.apply(cfg).model
    assert (own.num_convs, own.loss_bbox) == (1, {"type": "L1Loss", "loss_weight": 1.0})
    found = config_variant(cfg, "heavy:model.loss_bbox.loss_weight=3", ["loss_bbox"])
    assert found.apply(cfg).model.loss_bbox == {"type": "L1Loss", "loss_weight": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (":a=1", "expected NAME:KEY=VALUE"),
        ("x:model.num_convs", "expected KEY=VALUE,KEY=VALUE with each key once"),
        ("x:model.num_convs=1,model.num_convs=2", "with each key once"),
        ("x:modle.num_convs=1", "the config has no 'modle.num_convs'"),
        ("x:lr=1", "the config has no 'lr'"),
        ("x:model.num_convs.more=1", "is inside 2, which has no keys"),
        ("x:loss_bbox=SmoothL1Loss(bta=1)", "beta"),
        ("x:modle.num_convs=1", "Did you mean 'model'?"),
        ("x:randomness.seed=7", "changes randomness.seed, but the seeds are those of --seeds"),
        ("x:randomness.seed=5", "changes randomness.seed"),  # also if the config has that one
        ("x:randomness={seed: 7}", "changes randomness"),
        ("x:work_dir=a", "changes work_dir, but each run has its own directory"),
        ("x:resume=true", "changes resume, but unfinished runs are always resumed"),
        ("x:val_dataloader.dataset.num_images=3", "must be evaluated on the same data"),
        ("x:val_dataloader.dataset.ann_file=b.json", "must be evaluated on the same data"),
        ("x:val_dataloader={dataset: 1}", "changes val_dataloader.dataset"),
        ("x:val_evaluator.max_dets=500", "must be evaluated with the same metric"),
        ("x:test_evaluator={type: CocoMetric}", "changes test_evaluator, but a comparison"),
    ],
)
def test_a_variant_that_cannot_be_read_is_refused(cfg, text, message):
    cfg.val_dataloader = {"batch_size": 1, "dataset": {"ann_file": "a.json", "transforms": []}}
    with pytest.raises((ValueError, TypeError)) as info:
        config_variant(cfg, text, [])
    assert message in str(info.value)
    assert len(str(info.value)) < 500


def test_a_variant_may_change_weights_training_data_and_transforms(cfg):
    cfg.train_dataloader = {"dataset": {"ann_file": "a.json"}}
    cfg.val_dataloader = {"batch_size": 1, "dataset": {"ann_file": "b.json", "transforms": []}}
    keys = {
        "load_from": "x.pth",  # not in the config: mmengine's Runner has it
        "train_dataloader.dataset.ann_file": "c.json",
        "val_dataloader.batch_size": 2,
        "val_dataloader.dataset.transforms": ["Pad"],
        "randomness.deterministic": True,
    }
    text = ",".join(f"{key}={value}" for key, value in keys.items())
    assert config_variant(cfg, f"x:{text}", []).changes == keys
