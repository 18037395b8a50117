"""Configs: read by name, changed by options, and written as text that mmengine reads back."""

import copy
import errno
import gc
import os
import tempfile

import pytest
import torch
from mmengine.config import Config, ConfigDict

import det_losses.models  # noqa: F401  registers the detectors
from det_losses.engine.config import (
    apply_options,
    read_config,
    skip_broken_images,
    use_amp,
    use_losses,
    use_metric_options,
    use_own_data,
    use_validation,
)
from det_losses.errors import InputError, NotRegisteredError
from det_losses.registry import MODELS

WHOLE = """
model = dict(type="RetinaNet", num_convs=2)
train_dataloader = dict(dataset=dict(type="ShapesDataset", data_root="d", split="train",
    transforms=[dict(type="RandomHorizontalFlip", p=0.5)], num_images=5))
val_dataloader = dict(dataset=dict(type="CocoDataset", ann_file="a.json", image_dir="i",
    classes=["cat"], keep_negatives=True, test_mode=True, cache_mb=9))
val_evaluator = dict(type="CocoMetric")
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1))
train_cfg = dict(by_epoch=True, max_epochs=2)
"""


@pytest.fixture
def config_file(tmp_path):
    file = tmp_path / "whole.py"
    file.write_text(WHOLE)
    return file


@pytest.fixture
def cfg(config_file):
    return Config.fromfile(config_file)


def test_options_change_the_config(cfg):
    apply_options(cfg, ["train_cfg.max_epochs=3", "model.loss_bbox.type=GIoULoss", "resume=true"])
    assert cfg.train_cfg.max_epochs == 3
    assert cfg.model.loss_bbox == {"type": "GIoULoss"}
    assert cfg.resume is True


def test_a_number_of_steps_replaces_the_number_of_epochs(cfg):
    # In a config, max_epochs takes precedence; of an option and the config, the option.
    apply_options(cfg, ["train_cfg.steps=600"])
    assert cfg.train_cfg == {"by_epoch": True, "steps": 600}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train_cfg.max_epochs", "--cfg-options: expected KEY=VALUE, got 'train_cfg.max_epochs'"),
        ("=3", "expected KEY=VALUE"),
        ("tran_cfg.max_epochs=3", "no 'tran_cfg'. Did you mean 'train_cfg'?"),
        ("zzz=3", "no 'zzz'. It has "),
        ("train_cfg.max_epochs.deeper=3", "--cfg-options train_cfg.max_epochs.deeper=3: "),
    ],
)
def test_a_wrong_option_is_refused(cfg, option, message):
    with pytest.raises(ValueError) as info:
        apply_options(cfg, [option])
    assert message in str(info.value)


def test_own_data_keeps_transforms_and_mode_and_drops_the_subset(cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use_own_data(cfg, "train", "mine.json", "images")
    use_own_data(cfg, "val", "mine_val.json", "images")
    assert cfg.train_dataloader.dataset == {
        "type": "CocoDataset",
        "ann_file": str(tmp_path / "mine.json"),
        "image_dir": str(tmp_path / "images"),
        "transforms": [{"type": "RandomHorizontalFlip", "p": 0.5}],
    }
    val = cfg.val_dataloader.dataset
    assert (val.test_mode, val.keep_negatives, val.cache_mb) == (True, True, 9)
    assert "classes" not in val


def test_own_data_replaces_the_test_dataset_if_there_is_one(cfg):
    cfg.test_dataloader = ConfigDict(dataset=ConfigDict(type="CocoDataset", test_mode=True))
    use_own_data(cfg, "val", "/x.json", "/images")
    assert cfg.test_dataloader.dataset.ann_file == "/x.json"


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("x.json", None), "--train-ann requires --train-images"),
        ((None, "images"), "--train-images requires --train-ann"),
    ],
)
def test_own_data_without_images_or_annotations_is_an_error(cfg, pair, message):
    with pytest.raises(ValueError, match=message):
        use_own_data(cfg, "train", *pair)


def test_own_data_of_several_files_replaces_a_wrapped_dataset(cfg):
    cfg.train_dataloader.dataset = ConfigDict(
        type="RepeatDataset", times=3, dataset=cfg.train_dataloader.dataset
    )
    use_own_data(cfg, "train", ["/a.json", "/b.json"], ["/images"])
    assert cfg.train_dataloader.dataset == {
        "type": "CocoDataset",
        "ann_file": ["/a.json", "/b.json"],
        "image_dir": "/images",
        "transforms": [{"type": "RandomHorizontalFlip", "p": 0.5}],
    }
    use_own_data(cfg, "val", ["/c.json"], ["/images"])
    assert cfg.val_dataloader.dataset.ann_file == "/c.json"


def test_broken_images_are_skipped_in_all_datasets_in_coco_format(cfg):
    with pytest.raises(InputError, match="--skip-broken requires data in COCO format"):
        skip_broken_images(cfg)
    parts = [ConfigDict(type="CocoDataset", ann_file=f"{name}.json") for name in "ab"]
    joined = ConfigDict(type="ConcatDataset", datasets=parts)
    cfg.train_dataloader.dataset = ConfigDict(type="RepeatDataset", times=2, dataset=joined)
    skip_broken_images(cfg)
    assert all(each.skip_broken for each in cfg.train_dataloader.dataset.dataset.datasets)
    assert cfg.val_dataloader.dataset.skip_broken


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "expected"),
    [
        ("cuda", True, dict(type="AmpOptimWrapper", loss_scale="dynamic")),
        ("cpu", True, dict(type="BFloat16OptimWrapper")),
        ("cpu", False, dict(type="AmpOptimWrapper", loss_scale="dynamic")),  # is refused later
    ],
)
def test_amp_changes_the_wrapper(cfg, monkeypatch, device, has_bfloat16, expected):
    monkeypatch.setattr("det_losses.engine.config.get_device", lambda: device)
    monkeypatch.setattr("det_losses.engine.config.cpu_has_bfloat16", lambda: has_bfloat16)
    use_amp(cfg)
    assert {name: cfg.optim_wrapper.get(name) for name in expected} == expected
    assert ("loss_scale" in cfg.optim_wrapper) == ("loss_scale" in expected)


def test_amp_rejects_an_unknown_wrapper(cfg):
    cfg.optim_wrapper.type = "ApexOptimWrapper"
    with pytest.raises(ValueError, match="optim_wrapper is 'ApexOptimWrapper'"):
        use_amp(cfg)


# mmengine leaves its temporary file open when a config fails.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(", "was never closed"),
        ("model = undefined_name", "NameError: name 'undefined_name' is not defined"),
        ("_base_ = './absent.py'", "absent.py"),
        ("x = 1", "has no `model`, so it is not a complete experiment"),
    ],
)
def test_a_config_that_cannot_be_used_is_named(tmp_path, text, message):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(ValueError) as info:
        read_config(str(file))
    assert message in str(info.value)
    assert str(file) in str(info.value)
    del info
    gc.collect()


def test_a_full_disk_is_named_where_mmengine_hides_it(monkeypatch):
    """Config.fromfile makes a temporary folder; without space, it raises an UnboundLocalError."""

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(ValueError, match=r"retinanet_shapes\.py: OSError: .* No space left"):
        read_config("quickstart/retinanet_shapes")


def test_a_slot_gets_the_loss_that_is_named(cfg):
    cfg.model.loss_bbox = ConfigDict(type="SmoothL1Loss", beta=0.1)
    use_losses(cfg, ["loss_bbox=InnerIoU(CIoULoss, ratio=0.7)", "loss_cls=FocalLoss"])
    # What the slot had before is gone.
    assert cfg.model.loss_bbox == dict(type="InnerIoU", loss=dict(type="CIoULoss"), ratio=0.7)
    assert cfg.model.loss_cls == dict(type="FocalLoss")


def test_a_detector_without_slots_takes_what_its_constructor_takes(cfg, monkeypatch):
    class Theirs(torch.nn.Module):
        def __init__(self, loss_mask, loss_scale=1.0, width=3):
            super().__init__()

    monkeypatch.setitem(MODELS.module_dict, "Theirs", Theirs)
    cfg.model = dict(type="Theirs")
    use_losses(cfg, ["loss_mask=L1Loss"])
    assert cfg.model.loss_mask.type == "L1Loss"
    with pytest.raises(InputError, match="Theirs has no slot 'width'; it has loss_mask, loss_sca"):
        use_losses(cfg, ["width=L1Loss"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("CIoULoss", "--loss: expected SLOT=LOSS, got 'CIoULoss'"),
        ("loss_bbox=", "expected SLOT=LOSS"),
        ("loss_box=CIoULoss", "RetinaNet has no slot 'loss_box'; it has loss_cls, loss_bbox"),
        ("loss_bbox=CIoULoss(", "loss 'CIoULoss('"),
    ],
)
def test_a_wrong_loss_option_is_refused(cfg, option, message):
    with pytest.raises(InputError) as info:
        use_losses(cfg, [option])
    assert message in str(info.value)


def test_a_misspelled_detector_is_named(cfg):
    cfg.model.type = "RetinaNt"
    with pytest.raises(NotRegisteredError, match="Did you mean 'RetinaNet'"):
        use_losses(cfg, ["loss_bbox=CIoULoss"])


def test_options_of_the_metric_need_one_metric(cfg):
    use_metric_options(cfg, out=None, backend=None)
    assert cfg.val_evaluator == dict(type="CocoMetric")
    use_metric_options(cfg, out="/found.json", backend="hotcoco")
    assert cfg.val_evaluator == dict(type="CocoMetric", out_file="/found.json", backend="hotcoco")
    cfg.val_evaluator = [cfg.val_evaluator] * 2
    with pytest.raises(InputError, match="require a single metric as `val_evaluator`, not a list"):
        use_metric_options(cfg, out=None, backend="hotcoco")


def test_a_test_follows_the_settings_of_the_validation():
    val = dict(batch_size=8, num_workers=2, dataset=dict(type="CocoDataset", ann_file="val.json"))
    base = dict(val_dataloader=val, val_evaluator=dict(type="CocoMetric"), val_cfg={})
    own = dict(batch_size=1, dataset=dict(type="CocoDataset", ann_file="test.json"))
    for given, expected in (
        (None, val),
        (dict(batch_size=1), {**val, "batch_size": 1}),
        (dict(dataset=dict(num_images=5)), {**val, "dataset": {**val["dataset"], "num_images": 5}}),
        (own, own),  # which names its dataset, so it is complete
    ):
        cfg = Config(copy.deepcopy(base))
        if given is not None:
            cfg.test_dataloader = given
        use_validation(cfg)
        assert cfg.test_dataloader == expected
        assert cfg.test_evaluator == base["val_evaluator"]
        assert cfg.val_dataloader == val
