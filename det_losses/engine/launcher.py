"""The processes of a distributed training: who started them, how many, which images they load."""

import os
import re
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_distributed

from det_losses.errors import InputError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODELIST", "SLURM_JOB_ID")
_STARTS = {
    "pytorch": "torchrun --nproc_per_node N -m det_losses train CONFIG --launcher pytorch",
    "slurm": "srun -n N --kill-on-bad-exit python -m det_losses train CONFIG --launcher slurm",
}


def prepare_launcher(cfg: Config) -> None:
    """Check that the launcher of a config started this process; slurm becomes torchrun's protocol.

    mmengine's own slurm launcher needs CUDA and the program ``scontrol``.

    Args:
        cfg: the config; ``launcher`` becomes ``"pytorch"`` for slurm.

    Raises:
        InputError: the launcher's environment variables are missing.
    """
    launcher = cfg.get("launcher")
    if launcher not in _STARTS or is_distributed():
        return
    needed = _TORCHRUN if launcher == "pytorch" else _SLURM
    if missing := [name for name in needed if name not in os.environ]:
        program = "torchrun" if launcher == "pytorch" else "srun"
        raise InputError(
            f"launcher: {launcher!r} needs the environment variables of {program} "
            f"({', '.join(missing)} not set). Start with {_STARTS[launcher]}, or set launcher to "
            "'none'"
        )
    if launcher == "slurm":
        os.environ.update(torchrun_variables(os.environ))
        cfg.launcher = "pytorch"


def torchrun_variables(slurm: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that torchrun would set for a task of slurm.

    A given ``MASTER_ADDR`` or ``MASTER_PORT`` is kept. The port follows from the numbers of job and
    step, so that two steps on one machine do not share it.
    """
    step = int(slurm["SLURM_JOB_ID"]) + int(slurm.get("SLURM_STEP_ID", 0))
    # With --gpus-per-task=1 each task sees one GPU, whatever its number on the machine.
    local = int(slurm["SLURM_LOCALID"]) % max(1, torch.cuda.device_count())
    return {
        "RANK": slurm["SLURM_PROCID"],
        "WORLD_SIZE": slurm["SLURM_NTASKS"],
        "LOCAL_RANK": str(local),
        "MASTER_ADDR": slurm.get("MASTER_ADDR") or first_host(slurm["SLURM_NODELIST"]),
        "MASTER_PORT": slurm.get("MASTER_PORT") or str(20_000 + step % 10_000),
    }


def first_host(nodes: str) -> str:
    """Return the first host of a list in slurm's notation.

    >>> first_host("gpu[007-009,12],big1"), first_host("login1"), first_host("r[1-2]n[3,5]")
    ('gpu007', 'login1', 'r1n3')
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def process_count(cfg: Mapping[str, Any]) -> int:
    """Return the number of processes that train a config together."""
    if is_distributed():
        return get_world_size()
    launched = cfg.get("launcher", "none") in _STARTS
    return int(os.environ.get("WORLD_SIZE", 1)) if launched else 1


def is_first_process(cfg: Mapping[str, Any]) -> bool:
    """Return whether this process prints, and writes the files of the run."""
    return cfg.get("launcher", "none") not in _STARTS or os.environ.get("RANK", "0") == "0"


def divide_images(cfg: Config) -> None:
    """Divide the images of each dataloader among the processes, if there are several.

    This replaces mmengine's DefaultSampler, which repeats images until all ranks have the same
    number; a sampler with settings of its own is kept.

    Args:
        cfg: the config, changed in place.
    """
    if process_count(cfg) == 1:
        return
    for key in ("train_dataloader", "val_dataloader", "test_dataloader"):
        loader: MutableMapping[str, Any] = cfg.get(key) or {}
        sampler, batch_size = loader.get("sampler") or {}, loader.get("batch_size")
        is_default = str(sampler.get("type")).split(".")[-1] == "DefaultSampler"
        if (
            is_default
            and "round_up" not in sampler
            and batch_size
            and not loader.get("batch_sampler")
        ):
            training = key == "train_dataloader"
            drops = {"drop_last": True} if training and loader.get("drop_last") else {}
            own = {"batch_size": batch_size, "whole_batches": not training, **drops}
            loader["sampler"] = {**sampler, "type": "RankSampler", **own}
