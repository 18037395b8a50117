import sys

import pytest
from mmengine.config import Config
from PIL import Image

from det_losses.cli.arguments import (
    SEED,
    add_config,
    add_folds,
    add_losses,
    add_own_data,
    add_training,
    new_parser,
    whole_number,
)
from det_losses.config_diff import differences, plain
from det_losses.engine.config_text import config_text
from det_losses.engine.experiment import load_experiment
from det_losses.registry import MODELS


def test_options_apply_in_order_and_reach_own_data_and_losses(tiny_config):
    parser = new_parser("train", "", "")
    add_config(parser)
    add_losses(parser)
    add_training(parser)
    add_own_data(parser, train=True)
    own = ["--train-ann", "/x.json", "--train-images", "/images", "--skip-broken"]
    losses = ["--loss", "loss_bbox=L1Loss", "--loss", "loss_cls=FocalLoss", "loss_bbox=CIoULoss"]
    options = ["train_dataloader.dataset.num_images=7", "model.loss_bbox.loss_weight=3"]
    cfg = load_experiment(
        parser.parse_args([str(tiny_config), "--amp", *own, *losses, "--cfg-options", *options])
    )
    assert cfg.train_dataloader.dataset.ann_file == "/x.json"
    assert cfg.train_dataloader.dataset.num_images == 7
    assert cfg.train_dataloader.dataset.skip_broken and cfg.val_dataloader.dataset.skip_broken
    assert cfg.model.loss_bbox == dict(type="CIoULoss", loss_weight=3)
    assert cfg.model.loss_cls == dict(type="FocalLoss")
    assert cfg.optim_wrapper.type in ("AmpOptimWrapper", "BFloat16OptimWrapper")


@pytest.fixture
def yolo(tmp_path):
    """A data.yaml with one image in each split."""
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / split / "a.png")
        (tmp_path / "labels" / split / "a.txt").write_text("0 .5 .5 .5 .5")
    file = tmp_path / "data.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    return file


def experiment(tiny_config, *options, train=True):
    parser = new_parser("compare", "", "")
    add_config(parser)
    add_own_data(parser, train=train)
    if train:
        add_folds(parser)
    return load_experiment(parser.parse_args([str(tiny_config), *map(str, options)]))


def test_data_gives_both_splits_or_with_folds_the_training_data(tiny_config, yolo):
    cfg = experiment(tiny_config, "--data", yolo)
    for split in ("train", "val"):
        dataset = cfg[f"{split}_dataloader"].dataset
        assert dataset.ann_file == str(yolo.with_name(f"data.{split}.coco.json"))
        assert dataset.image_dir == str(yolo.parent / "images" / split)
    cfg = experiment(tiny_config, "--data", yolo, "--folds", 2)
    assert cfg.val_dataloader.dataset.ann_file == cfg.train_dataloader.dataset.ann_file
    cfg = experiment(tiny_config, "--data", yolo, train=False)
    assert cfg.val_dataloader.dataset.image_dir == str(yolo.parent / "images" / "val")
    assert "tiny" in cfg.train_dataloader.dataset.image_dir
    cfg = experiment(tiny_config, "--val-ann", yolo)
    assert cfg.val_dataloader.dataset.ann_file == str(yolo.with_name("data.val.coco.json"))


def test_data_excludes_the_options_of_a_split(tiny_config, yolo, capsys):
    for options, message in (
        (
            ("--train-ann", yolo),
            "--data gives all data; leave out --train-ann, --train-images, --val",
        ),
        (("--data", tiny_config.parent / "tiny" / "instances.json"), "expected a data.yaml (YOLO)"),
        (("--data", "nowhere"), "--data nowhere: no such file or folder"),
    ):
        with pytest.raises(SystemExit):
            experiment(tiny_config, "--data", yolo, *options)
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="--train-images is for COCO jsons only"):
        experiment(tiny_config, "--train-ann", yolo, "--train-images", yolo.parent)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--los", "x"], "unrecognized arguments: --los x. Did you mean '--loss'?"),
        (["--loss"], "argument --loss: expected at least one argument"),
        (["--jobs", "two"], "argument --jobs: must be a whole number, got 'two'"),
        (["--jobs", "0"], "argument --jobs: must be at least 1, got 0"),
        (["--seed", "-1"], "argument --seed: must be from 0 to 4294967295, got -1"),
    ],
)
def test_only_a_misspelt_option_gets_a_suggestion(capsys, options, error):
    parser = new_parser("train", "", "")
    add_losses(parser)
    parser.add_argument("--jobs", type=whole_number(1))
    parser.add_argument("--seed", type=SEED)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(options)
    assert capsys.readouterr().err.splitlines()[0] == f"error: {error}"


BASED = """
_base_ = "det_losses::{name}"
train_cfg = dict(max_epochs=3)
"""


def loaded(*arguments):
    parser = new_parser("train", "", "")
    add_config(parser)
    add_own_data(parser, train=True)
    return load_experiment(parser.parse_args([*map(str, arguments)]))


def test_a_config_anywhere_can_have_a_shipped_base(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(BASED.format(name="small/retinanet_lite0"))
    cfg = loaded(file)
    assert (cfg.model.type, cfg.train_cfg.max_epochs, cfg.train_cfg.steps) == ("RetinaNet", 3, 800)
    file.write_text(BASED.format(name="small/retinanet_lite"))
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'small/retinanet_lite0'\?"):
        loaded(file)


def test_own_losses_are_imported_here_and_where_the_config_is_read(
    tiny_config, tmp_path, monkeypatch
):
    (tmp_path / "losses_of_mine.py").write_text(
        "from det_losses.losses import L1Loss\n"
        "from det_losses.registry import MODELS\n"
        "@MODELS.register_module()\n"
        "class LossOfMine(L1Loss):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    cfg = loaded(tiny_config, "--import", "losses_of_mine")
    assert cfg.custom_imports == dict(imports=["losses_of_mine"])
    assert "LossOfMine" in MODELS.module_dict
    stored = tmp_path / "stored.py"
    stored.write_text(config_text(cfg))
    assert Config.fromfile(stored).custom_imports == cfg.custom_imports
    # The modules are no part of what makes two runs different.
    assert differences(plain(cfg), plain(loaded(tiny_config))) == []
    MODELS.module_dict.pop("LossOfMine")


@pytest.mark.parametrize(
    ("has", "lacks"),
    [("train", "--val-ann and --val-images"), ("val", "--train-ann and --train-images")],
)
def test_own_data_of_one_split_needs_the_other(tiny_config, has, lacks):
    own = [f"--{has}-ann", "a.json", f"--{has}-images", "."]
    with pytest.raises(ValueError, match=f"--{has}-ann requires {lacks}$"):
        loaded("quickstart/retinanet_shapes", *own)
    loaded(tiny_config, *own)  # whose other split is in COCO format, and exists


def test_versions_are_printed_by_every_tool(capsys):
    with pytest.raises(SystemExit, match="0"):
        new_parser("train", "", "").parse_args(["--version"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "det_losses", "python", "torch", "torchvision", "mmengine-lite", "hotcoco",
    ]  # fmt: skip
