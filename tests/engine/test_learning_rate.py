"""The learning rate of each step is that of the config's schedule."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from training import run

from det_losses.engine.learning_rate import in_steps

SCHEDULES = {
    "cosine": [dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True)],
    "cosine of epochs": [dict(type="CosineAnnealingLR", by_epoch=True)],
    "milestones": [
        dict(type="LinearLR", start_factor=0.5, by_epoch=False, begin=0, end=2),
        dict(type="MultiStepLR", milestones=[1, 3], gamma=0.1),
    ],
    "poly": [dict(type="PolyLR", power=0.9, eta_min=1e-4)],
    "one cycle": [dict(type="OneCycleLR", eta_max=0.05, by_epoch=False)],
    "constant": None,
}


class Rates(Hook):
    """Keeps the learning rate of every step."""

    def __init__(self):
        self.values = []

    def before_train_iter(self, runner, **kwargs):
        self.values.append(runner.optim_wrapper.get_lr()["lr"][0])


def rates(cfg, **changes):
    hook = Rates()
    runner = run({**cfg, **changes}, hook)
    return hook.values, runner


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_longer_training_follows_its_own_schedule(toy_cfg, name, capfd):
    schedule = SCHEDULES[name]
    expected, _ = rates(toy_cfg("whole", epochs=4, param_scheduler=schedule))
    _, first = rates(toy_cfg("first", epochs=2, param_scheduler=schedule))
    start = f"{first.work_dir}/epoch_2.pth"
    capfd.readouterr()
    longer = toy_cfg("longer", epochs=4, param_scheduler=schedule)
    found, _ = rates(longer, load_from=start, resume=True)
    assert found == pytest.approx(expected[6:], rel=1e-9)
    said = "those of the config are used, so the learning rate is " in capfd.readouterr().out
    assert said is (schedule is not None)


def test_other_settings_of_the_optimizer_are_those_of_the_config(toy_cfg):
    _, first = rates(toy_cfg("first", epochs=1))
    cfg = toy_cfg("second", epochs=2, load_from=f"{first.work_dir}/epoch_1.pth", resume=True)
    cfg["optim_wrapper"]["optimizer"] = dict(type="SGD", lr=0.01, momentum=0.5)
    found, second = rates(cfg)
    assert found[-1] == pytest.approx(0.01)
    assert second.optim_wrapper.param_groups[0]["momentum"] == 0.5


def by_iterations(toy_cfg, name, schedule, max_iters=12, **changes):
    """The toy's three steps per epoch as a training by iterations."""
    train = dict(by_epoch=False, max_iters=max_iters, val_interval=3)
    cfg = toy_cfg(name, train_cfg=train, param_scheduler=schedule, **changes)
    cfg["train_dataloader"]["sampler"] = dict(type="InfiniteSampler", shuffle=True)
    return cfg


@pytest.mark.parametrize("name", ["cosine", "milestones", "one cycle", "constant"])
def test_training_by_iterations_has_the_rates_of_its_epochs(toy_cfg, name):
    schedule = SCHEDULES[name]
    expected, _ = rates(toy_cfg("epochs", epochs=4, param_scheduler=schedule))
    cfg = by_iterations(toy_cfg, "iterations", schedule)
    cfg["train_cfg"]["max_epochs"] = 9  # of a base config
    found, runner = rates(cfg)
    assert found == pytest.approx(expected, rel=1e-9)
    kept = sorted(path.name for path in Path(runner.work_dir).glob("*.pth"))
    assert kept == ["iter_12.pth", "iter_9.pth"]  # saved at each evaluation


def test_a_killed_training_by_iterations_is_resumed_identically(toy_cfg, record):
    class Stop(Hook):
        def before_train_iter(self, runner, **kwargs):
            if runner.iter == 7:
                raise KeyboardInterrupt

    def cfg(name, **changes):
        made = by_iterations(toy_cfg, name, SCHEDULES["cosine"], **changes)
        made["train_dataloader"]["dataset"]["dim"] = True
        return made

    whole = run(cfg("whole"))
    with pytest.raises(KeyboardInterrupt):
        run(cfg("parts"), Stop())
    parts = run(cfg("parts", resume=True))
    expected, got = (
        torch.load(Path(each.work_dir) / "iter_12.pth")["state_dict"] for each in (whole, parts)
    )
    assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert record(parts)["metrics"] == record(whole)["metrics"]


def test_lengths_become_steps():
    schedule = dict(type="StepLR", step_size=2, begin=1, convert_to_iter_based=True)
    expected = dict(type="StepLR", step_size=20, begin=10, by_epoch=False, end=55)
    assert in_steps(schedule, 10, 55) == expected
    assert in_steps(dict(type="X", by_epoch=False, end=7), 10, 55)["end"] == 7
    assert in_steps(dict(type="ExponentialLR", gamma=0.5), 10, 55)["gamma"] ** 10 == pytest.approx(
        0.5
    )
