import argparse
import gc

import pytest
from mmengine.config import Config, ConfigDict

from det_losses.cli.experiment import (
    apply_options,
    load_experiment,
    read_config,
    use_amp,
    use_own_data,
)

WHOLE = """
model = dict(type="RetinaNet", num_convs=2)
train_dataloader = dict(dataset=dict(type="ShapesDataset", data_root="d", split="train",
    transforms=[dict(type="RandomHorizontalFlip", p=0.5)], num_images=5))
val_dataloader = dict(dataset=dict(type="CocoDataset", ann_file="a.json", image_dir="i",
    classes=["cat"], keep_negatives=True, test_mode=True))
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


def arguments(**given):
    return argparse.Namespace(**{"cfg_options": [], **given})


def test_options_change_the_config(cfg):
    apply_options(cfg, ["train_cfg.max_epochs=3", "model.loss_bbox.type=GIoULoss", "resume=true"])
    assert cfg.train_cfg.max_epochs == 3
    assert cfg.model.loss_bbox == {"type": "GIoULoss"}
    assert cfg.resume is True


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
    assert (val.test_mode, val.keep_negatives, "classes" in val) == (True, True, False)


def test_own_data_reaches_the_test_dataloader_where_there_is_one(cfg):
    cfg.test_dataloader = ConfigDict(dataset=ConfigDict(type="CocoDataset", test_mode=True))
    use_own_data(cfg, "val", "/x.json", "/images")
    assert cfg.test_dataloader.dataset.ann_file == "/x.json"


def test_options_reach_own_data(config_file):
    args = arguments(
        config=str(config_file),
        train_ann="/x.json",
        train_images="/images",
        cfg_options=["train_dataloader.dataset.num_images=7"],
    )
    cfg = load_experiment(args)
    assert cfg.train_dataloader.dataset.num_images == 7
    assert cfg.train_dataloader.dataset.ann_file == "/x.json"


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("x.json", None), "--train-ann needs --train-images beside it"),
        ((None, "images"), "--train-images needs --train-ann beside it"),
    ],
)
def test_half_a_pair_of_own_data_is_refused(cfg, pair, message):
    with pytest.raises(ValueError, match=message):
        use_own_data(cfg, "train", *pair)


def test_amp_changes_the_wrapper(cfg):
    use_amp(cfg)
    assert cfg.optim_wrapper.type == "AmpOptimWrapper"
    assert cfg.optim_wrapper.loss_scale == "dynamic"


def test_amp_refuses_a_wrapper_it_does_not_know(cfg):
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
        ("x = 1", "has no `model`: it is no whole experiment"),
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
