"""The length of a training in steps, and the settings that follow from it."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import LinearLR

from det_losses.engine.schedule import (
    limit_warm_up,
    set_intervals,
    set_length,
    warm_up_steps,
)
from det_losses.errors import InputError
from det_losses.paths import configs_root


def config(batch_size=8, scheduler=(), **train):
    return Config(
        {
            "train_cfg": {"by_epoch": True, **train},
            "train_dataloader": {"batch_size": batch_size},
            "param_scheduler": list(scheduler),
            "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": None}},
        }
    )


@pytest.mark.parametrize(
    ("images", "epochs", "steps"),
    [
        (150, 32, 608),  # 19 steps per epoch; 600 / 19 = 31.6
        (205, 23, 598),  # 26; 23.1
        (1000, 5, 625),  # 125; 4.8
        (8, 600, 600),
        (100_000, 1, 12_500),  # at least one epoch
    ],
)
def test_a_number_of_steps_is_trained_on_any_number_of_images(images, epochs, steps):
    cfg = config(steps=600, val_interval=None)
    length = set_length(cfg, images)
    assert (cfg.train_cfg.max_epochs, length.steps) == (epochs, steps)
    assert "steps" not in cfg.train_cfg  # mmengine's loop does not know it
    set_intervals(cfg)
    assert cfg.train_cfg.val_interval == epochs
    assert cfg.default_hooks.checkpoint.interval == (epochs + 1) // 2


def test_the_length_is_stated():
    length = set_length(config(steps=1200), 205)
    assert str(length) == "205 images, batch size 8: 46 epochs (1,196 steps)"
    assert str(set_length(config(max_epochs=1), 3)) == "3 images, batch size 8: 1 epoch (1 step)"


def test_given_epochs_and_intervals_take_precedence():
    cfg = config(steps=600, max_epochs=4, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 3
    assert set_length(cfg, 205).epochs == 4
    set_intervals(cfg)
    assert (cfg.train_cfg.val_interval, cfg.default_hooks.checkpoint.interval) == (2, 3)


def test_an_incomplete_batch_counts_unless_it_is_dropped(monkeypatch):
    cfg = config(max_epochs=1)
    assert set_length(cfg, 20).steps == 3
    cfg.train_dataloader.drop_last = True
    assert set_length(cfg, 20).steps == 2
    # Two processes share the images of an epoch.
    cfg.launcher = "pytorch"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert set_length(cfg, 40).steps == 2


def test_the_warm_up_is_a_tenth_of_few_steps():
    warm_up = {"type": "LinearLR", "by_epoch": False, "begin": 0, "end": 50}
    # 100 steps are 4 epochs of 26 on these images.
    for steps, end in ((100, 11), (600, 50)):
        cfg = config(steps=steps, scheduler=[dict(warm_up)])
        set_length(cfg, 205)
        limit_warm_up(cfg, 205)
        assert cfg.param_scheduler[0].end == end


@pytest.mark.parametrize(
    ("given", "length", "shortened"),
    [
        # 12 epochs of 26 steps: a tenth of 312 steps is 32.
        (dict(by_epoch=False, end=500), 500, dict(by_epoch=False, end=32)),
        (dict(by_epoch=True, end=3), 78, dict(by_epoch=False, end=32)),
        (dict(end=2, convert_to_iter_based=True), 52, dict(by_epoch=False, end=32)),
        (dict(by_epoch=True, end=1), 26, None),
        (dict(by_epoch=False, end=32), 32, None),
        # A decay, and a warm-up that starts later, are no warm-ups of the first steps.
        (dict(by_epoch=True, end=12, start_factor=1.0, end_factor=0.0), 0, None),
        (dict(by_epoch=True, begin=3, end=12), 0, None),
    ],
)
@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_warm_up_is_at_most_a_tenth_of_a_training(given, length, shortened, by_epoch):
    train = dict(max_epochs=12) if by_epoch else dict(max_iters=312)
    cfg = config(scheduler=[dict(type="LinearLR", **given)], by_epoch=by_epoch, **train)
    assert warm_up_steps(cfg, 205) == length
    note = limit_warm_up(cfg, 205)
    assert cfg.param_scheduler == [dict(type="LinearLR", **(shortened or given))]
    if shortened is None:
        assert note is None
    else:
        assert note.startswith(f"The warm-up takes 32 steps instead of {length}, which is more")


@pytest.mark.parametrize("epochs", [1, 2, 8, 60])
def test_a_shortened_warm_up_reaches_the_learning_rate(epochs):
    cfg = config(max_epochs=epochs, scheduler=[dict(type="LinearLR", by_epoch=False, end=500)])
    limit_warm_up(cfg, 8)  # a step per epoch
    settings = {k: v for k, v in cfg.param_scheduler[0].items() if k != "type"}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = LinearLR(optimizer, **settings)
    rates = []
    for _ in range(settings["end"]):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.5 / 3)
    assert rates[-1] == pytest.approx(0.5)
    assert settings["end"] == max(2, epochs / 10)


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("quickstart/retinanet_shapes", 1000),
        ("quickstart/fcos_shapes", 1000),
        ("quickstart/gfl_shapes", 1000),
        ("small/retinanet_lite0", 150),
        ("small/faster_rcnn_lite0", 150),
        ("small/fcos_lite0", 1000),
        ("retinanet/retinanet_base", 117_266),
        ("faster_rcnn/faster_rcnn_base", 117_266),
        ("fcos/fcos_base", 117_266),
    ],
)
def test_shipped_schedules_on_their_data_are_not_shortened(name, images):
    cfg = Config.fromfile(configs_root() / f"{name}.py")
    set_length(cfg, images)
    set_intervals(cfg)
    assert warm_up_steps(cfg, images) > 0
    assert limit_warm_up(cfg, images) is None


def test_iterations_and_loops_of_the_user():
    cfg = Config({"train_cfg": {"by_epoch": False, "steps": 600, "val_interval": None}})
    cfg.default_hooks = dict(checkpoint=dict(interval=None))
    assert set_length(cfg, 205) is None
    set_intervals(cfg)
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (600, 600)
    assert cfg.default_hooks.checkpoint == dict(interval=300, by_epoch=False)
    named = Config({"train_cfg": {"type": "IterBasedTrainLoop", "by_epoch": True, "steps": 9}})
    set_length(named, 205)
    assert named.train_cfg == dict(type="IterBasedTrainLoop", max_iters=9)  # mmengine takes one
    own = Config({"train_cfg": {"type": "OwnLoop", "steps": 600}})
    set_length(own, 205)
    assert own.train_cfg.steps == 600


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"steps": 0}, r"train_cfg\.steps must be a whole number above 0, got 0"),
        ({"steps": 1.5}, r"train_cfg\.steps must be .* got 1\.5"),
        ({"max_epochs": "ten"}, r"train_cfg\.max_epochs must be .* got 'ten'"),
        ({}, r"train_cfg\.max_epochs must be .* got None"),
    ],
)
def test_a_length_that_cannot_be_used_is_an_error(train, message):
    with pytest.raises(InputError, match=message):
        set_length(config(**train), 205)


def test_steps_require_a_batch_size():
    with pytest.raises(InputError, match=r"train_cfg\.steps requires train_dataloader\.batch_size"):
        set_length(config(batch_size=None, steps=600), 205)
