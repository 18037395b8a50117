"""The length of a training, and the settings that follow from it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from det_losses.engine.config import entries
from det_losses.engine.launcher import process_count
from det_losses.errors import InputError

_WARM_UP = 0.1  # of a training, at most
_SHORTEST = 2  # steps: mmengine's schedule of one step stays at its first factor for ever


@dataclass(frozen=True)
class Length:
    """The length of an epoch-based training.

    Attributes:
        images: number of training images.
        batch_size: images per step and process.
        epochs: number of epochs.
        steps: number of steps of the optimizer.
        processes: number of processes that train together.
    """

    images: int
    batch_size: int
    epochs: int
    steps: int
    processes: int = 1

    def __str__(self) -> str:
        length = f"{amount(self.epochs, 'epoch')} ({amount(self.steps, 'step')})"
        batch = batch_text(self.batch_size, self.processes)
        return f"{self.images:,} images, {batch}: {length}"


def batch_text(batch_size: int | None, processes: int) -> str:
    """Return the batch size, and of how many processes.

    >>> batch_text(8, 1), batch_text(2, 4)
    ('batch size 8', 'batch size 2 in each of 4 processes')
    """
    return f"batch size {batch_size}{f' in each of {processes} processes' * (processes > 1)}"


def amount(count: int, unit: str) -> str:
    """Return a number of steps or epochs, with commas between thousands.

    >>> amount(1, "epoch"), amount(90_000, "step")
    ('1 epoch', '90,000 steps')
    """
    return f"{count:,} {unit}{'s' * (count != 1)}"


def set_length(cfg: Config, images: int) -> Length | None:
    """Replace ``train_cfg.steps`` by the number of epochs that comes closest to it.

    A given ``max_epochs`` takes precedence. In an iteration-based training, ``steps`` becomes
    ``max_iters``, if that is not given.

    Args:
        cfg: the config, changed in place.
        images: number of training images.

    Returns:
        The length; None for any other than an epoch-based training with a batch size.

    Raises:
        InputError: ``steps`` or ``max_epochs`` is not a whole number above 0, both are missing, or
            the batch size is unknown.
    """
    train = cfg.train_cfg
    if train.get("type") is not None:
        train.pop("by_epoch", None)  # of a base config; mmengine refuses both
    if _has_own_loop(cfg):
        return None
    steps = train.pop("steps", None)
    if steps is not None:
        _check_whole("steps", steps)
    if not is_by_epoch(cfg):
        if steps is not None:
            train.setdefault("max_iters", steps)
        return None
    batch_size = cfg.train_dataloader.get("batch_size")
    if train.get("max_epochs") is None and steps is not None:
        if batch_size is None:
            raise InputError("train_cfg.steps requires train_dataloader.batch_size")
        train.max_epochs = max(1, round(steps / _steps_per_epoch(cfg, images)))
    _check_whole("max_epochs", train.get("max_epochs"))
    if batch_size is None:
        return None
    epochs = train.max_epochs
    steps = epochs * _steps_per_epoch(cfg, images)
    return Length(images, batch_size, epochs, steps, process_count(cfg))


def limit_warm_up(cfg: Config, images: int) -> str | None:
    """Shorten a linear warm-up to a tenth of the training, if it is longer.

    Published schedules warm up for 500 steps of COCO. On few images the whole training may have
    less, and would end before the learning rate is reached. A warm-up counted in epochs becomes one
    in steps.

    Args:
        cfg: the config, changed in place. Its length is set (:func:`set_length`).
        images: number of training images.

    Returns:
        What was changed, in a sentence; None if nothing was.
    """
    steps = training_steps(cfg, images)
    if steps is None:
        return None
    most, note = max(_SHORTEST, math.ceil(_WARM_UP * steps)), None
    for scheduler in _warm_ups(cfg):
        length = _steps_of(cfg, scheduler, images)
        if length > most:
            scheduler.pop("convert_to_iter_based", None)
            scheduler.update(by_epoch=False, end=most)
            note = (
                f"The warm-up takes {most:,} steps instead of {length:,}, which is more than a "
                f"tenth of the {steps:,} steps of the training"
            )
    return note


def warm_up_steps(cfg: Config, images: int) -> int:
    """Return the steps of the longest linear warm-up; 0 without one."""
    return max((_steps_of(cfg, each, images) for each in _warm_ups(cfg)), default=0)


def training_steps(cfg: Config, images: int) -> int | None:
    """Return the steps of a training whose length is set; None for a loop of the user's."""
    if _has_own_loop(cfg):
        return None
    if not is_by_epoch(cfg):
        return cfg.train_cfg.max_iters
    if cfg.train_dataloader.get("batch_size") is None:
        return None
    return cfg.train_cfg.max_epochs * _steps_per_epoch(cfg, images)


def _warm_ups(cfg: Config) -> list[Any]:
    """Return the linear schedules that raise the learning rate from the first step on."""
    return [
        each
        for each in entries(cfg.get("param_scheduler"))
        if isinstance(each, Mapping)
        and re.search(r"Linear(LR|ParamScheduler)$", str(each.get("type")))
        and not each.get("begin")
        and each.get("end")
        and each.get("start_factor", 1 / 3) < each.get("end_factor", 1.0)
    ]


def _steps_of(cfg: Config, scheduler: Mapping[str, Any], images: int) -> int:
    per_epoch = _steps_per_epoch(cfg, images) if scheduler.get("by_epoch", True) else 1
    return int(scheduler["end"] * per_epoch)


def set_intervals(cfg: Config) -> None:
    """Set the intervals and schedules that are left open from the length of the training.

    ``train_cfg.val_interval=None`` evaluates once, at the end; ``interval=None`` of the checkpoint
    hook writes one checkpoint in the middle and one at the end; a cosine schedule without a length
    ends with training. mmengine's cosine is periodic: after a shorter period the learning rate
    would rise again.

    In a training by iterations, logs and checkpoints count iterations. A checkpoint hook without
    ``by_epoch`` of its own and with the interval 1 saves at each evaluation.
    """
    train = cfg.train_cfg
    if not is_by_epoch(cfg) and not _has_own_loop(cfg):
        _count_iterations(cfg)
    epochs = train.get("max_epochs")
    length = epochs if is_by_epoch(cfg) else train.get("max_iters")
    if "val_interval" in train and train.val_interval is None:
        train.val_interval = length
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint")
    if checkpoint and "interval" in checkpoint and checkpoint.interval is None:
        checkpoint.interval = math.ceil(length / 2)
        checkpoint.by_epoch = is_by_epoch(cfg)
    for scheduler in entries(cfg.get("param_scheduler")):
        is_cosine = "CosineAnnealing" in str(scheduler.get("type"))
        has_length = scheduler.get("T_max") is not None or scheduler.get("end") is not None
        in_epochs = is_by_epoch(cfg) and scheduler.get("by_epoch", True)
        if is_cosine and in_epochs and not has_length:
            _check_whole("max_epochs", epochs)
            scheduler.T_max = epochs - scheduler.get("begin", 0)


def _count_iterations(cfg: Config) -> None:
    _check_whole("max_iters", cfg.train_cfg.get("max_iters"))
    cfg.train_cfg.pop("max_epochs", None)  # of a base config
    cfg.setdefault("log_processor", {})["by_epoch"] = False
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint")
    if checkpoint and "by_epoch" not in checkpoint:
        checkpoint.by_epoch = False
        if checkpoint.get("interval", 1) == 1:
            checkpoint.interval = cfg.train_cfg.get("val_interval", 1000)


def is_by_epoch(cfg: Config) -> bool:
    """Return whether a config trains epochs, not iterations."""
    kind = cfg.train_cfg.get("type")
    return cfg.train_cfg.get("by_epoch") if kind is None else "EpochBasedTrainLoop" in str(kind)


def _has_own_loop(cfg: Config) -> bool:
    """Return whether the config names a loop of the user's, with arguments of its own."""
    kind = cfg.train_cfg.get("type")
    return kind is not None and not str(kind).endswith(
        ("EpochBasedTrainLoop", "IterBasedTrainLoop")
    )


def _steps_per_epoch(cfg: Config, images: int) -> int:
    loader = cfg.train_dataloader
    batches = images / (process_count(cfg) * loader.batch_size)
    return max(1, math.floor(batches) if loader.get("drop_last") else math.ceil(batches))


def _check_whole(key: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"train_cfg.{key} must be a whole number above 0, got {value!r}")
