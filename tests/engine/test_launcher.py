"""Launchers: slurm's variables, the number of processes, and which samplers are replaced."""

import os

import pytest
import torch
from mmengine.config import Config

from det_losses.engine.launcher import (
    divide_images,
    is_first_process,
    prepare_launcher,
    process_count,
    torchrun_variables,
)
from det_losses.errors import InputError

# srun -n 6 on two machines: task 4 is the second of gpu08.
TASK = {
    "SLURM_PROCID": "4",
    "SLURM_NTASKS": "6",
    "SLURM_LOCALID": "1",
    "SLURM_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_ID": "2",
}

NAMES = (*TASK, "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def environment(monkeypatch):
    """Set exactly the given variables of launchers."""

    def set_to(variables):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    before = {name: os.environ[name] for name in NAMES if name in os.environ}
    yield set_to
    monkeypatch.undo()
    for name in NAMES:  # also what prepare_launcher has set
        os.environ.pop(name, None)
    os.environ.update(before)


def test_slurm_becomes_the_protocol_of_torchrun(environment, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    environment(TASK)
    cfg = Config({"launcher": "slurm"})
    prepare_launcher(cfg)
    assert cfg.launcher == "pytorch"
    assert process_count(cfg) == 6
    assert not is_first_process(cfg)
    expected = {"RANK": "4", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu07"}
    found = torchrun_variables(TASK)
    assert found == {**expected, "MASTER_PORT": str(20_000 + 1_234_569 % 10_000)}
    prepare_launcher(cfg)  # again, for the copy of the config that the runner has


@pytest.mark.parametrize(
    ("devices", "variables", "expected"),
    [
        (1, {}, {"LOCAL_RANK": "0"}),  # --gpus-per-task=1: each task sees its GPU only
        (0, {}, {"LOCAL_RANK": "0"}),
        (8, {"MASTER_PORT": "4", "MASTER_ADDR": "ib0"}, {"MASTER_PORT": "4", "MASTER_ADDR": "ib0"}),
    ],
)
def test_details_of_slurm(monkeypatch, devices, variables, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    assert expected.items() <= torchrun_variables({**TASK, **variables}).items()


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ("pytorch", r"'pytorch' needs .* of torchrun \(RANK, .*Start with torchrun --nproc_per"),
        ("slurm", r"'slurm' needs .* of srun \(SLURM_PROCID, .*Start with srun -n N --kill-on"),
    ],
)
def test_a_launcher_that_did_not_start_this_process(environment, launcher, message):
    environment({})
    with pytest.raises(InputError, match=message):
        prepare_launcher(Config({"launcher": launcher}))


def test_one_process_without_a_launcher(environment):
    environment({"WORLD_SIZE": "8", "RANK": "3"})  # left over in the shell
    assert process_count({"launcher": "none"}) == process_count({}) == 1
    assert is_first_process({})
    assert process_count({"launcher": "pytorch"}) == 8


def loader(**changes):
    sampler = dict(type="DefaultSampler", shuffle=True)
    return {"batch_size": 2, "sampler": sampler, **changes}


def test_samplers_are_replaced_for_several_processes(environment):
    environment({"WORLD_SIZE": "2"})
    own = dict(type="InfiniteSampler")
    cfg = Config(
        dict(
            launcher="pytorch",
            train_dataloader=loader(drop_last=True),
            val_dataloader=loader(),
            test_dataloader=loader(sampler=own),
        )
    )
    divide_images(cfg)
    new = dict(type="RankSampler", shuffle=True, batch_size=2)
    assert cfg.train_dataloader.sampler == {**new, "whole_batches": False, "drop_last": True}
    assert cfg.val_dataloader.sampler == {**new, "whole_batches": True}
    assert cfg.test_dataloader.sampler == own
    alone = Config(dict(launcher="none", train_dataloader=loader()))
    divide_images(alone)
    assert alone.train_dataloader == loader()
