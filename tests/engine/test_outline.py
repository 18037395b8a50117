"""The plan that is printed before a training."""

from collections import namedtuple
from pathlib import Path

from mmengine.config import Config

from det_losses.engine import outline as module
from det_losses.engine.outline import disk_text, outline


def config(**train):
    return Config(
        {
            "model": {"type": "FCOS", "min_size": 800, "max_size": 1333},
            "train_cfg": {"by_epoch": True, "max_epochs": 12, "val_interval": 3, **train},
            "train_dataloader": {"batch_size": 8},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.02}},
            "auto_scale_lr": {"enable": True, "base_batch_size": 16},
            "param_scheduler": [
                {"type": "LinearLR", "by_epoch": False, "begin": 0, "end": 500},
                {"type": "MultiStepLR", "by_epoch": True, "milestones": [8, 11]},
            ],
        }
    )


def test_the_rows_follow_from_config_and_data():
    cfg = config()
    classes = [f"class {number}" for number in range(10)]
    # 205 images are 26 steps of 8, so 12 epochs are 312 steps, of which a tenth is 32.
    assert outline(cfg, 205, classes, "205 and 20") == {
        "images": "205 and 20",
        "classes": f"10: {', '.join(classes[:8])}, ...",
        "model": "FCOS, images with a shortest side of 800 px, longest at most 1333 px",
        "training": "12 epochs (312 steps), batch size 8; evaluated every 3 epochs",
        "learning rate": "0.01 (SGD, scaled from 0.02 for 16 images a step), MultiStepLR, warm-up "
        "32 steps (shortened from 500: at most a tenth of the training)",
    }
    assert cfg.to_dict() == config().to_dict()  # not changed


def test_several_processes_divide_the_steps_and_multiply_the_learning_rate(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    cfg = config()
    cfg.launcher = "pytorch"
    rows = outline(cfg, 205, ["a"], "")
    # 205 images are 7 steps of 32, so 12 epochs are 84 steps.
    expected = "12 epochs (84 steps), batch size 8 in each of 4 processes; evaluated every 3 epochs"
    assert rows["training"] == expected
    assert rows["learning rate"].startswith("0.04 (SGD, scaled from 0.02 for 16 images a step)")


def test_the_anchors_that_the_config_sets_are_shown():
    cfg = config()
    cfg.model.anchor_sizes = [8, 16]
    assert outline(cfg, 8, ["a"], "")["anchors"] == "sizes 8 16 px"
    cfg.model = dict(anchors=dict(sizes=((8, 10.5), (16, 20)), aspect_ratios=(0.5, 1.0)))
    cfg.model.type = "RetinaNet"
    expected = "sizes 8 10.5 / 16 20 px, aspect ratios 0.5 1"
    assert outline(cfg, 8, ["a"], "")["anchors"] == expected


def test_iterations_and_a_single_epoch():
    own = config(by_epoch=False, max_iters=9000, val_interval=9000)
    rows = outline(own, 205, ["a"], "")
    assert rows["training"] == "9,000 steps, batch size 8; evaluated at the end"
    assert rows["learning rate"].endswith("warm-up 500 steps")
    assert "images" not in rows
    rows = outline(config(max_epochs=1, val_interval=1), 8, ["a"], "")
    assert rows["training"] == "1 epoch (1 step), batch size 8; evaluated at the end"


def test_too_little_space_is_said(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage(5e9))
    new = Path(tmp_path, "not", "yet", "there")
    assert disk_text(80e6, new) == "about 80 MB of 5.0 GB free"
    assert disk_text(80e9, new).endswith("about 80 GB of 5.0 GB free: TOO LITTLE SPACE")
