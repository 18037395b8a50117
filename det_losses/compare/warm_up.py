"""A short training in memory: the weights before and after it, and nothing left on disk."""

import copy
import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from tqdm import tqdm

from det_losses.engine import build_runner
from det_losses.engine.gradient_norm import FixedBatches
from det_losses.engine.run import build_parts
from det_losses.engine.signals import StopHook


@dataclass(frozen=True)
class WarmUp:
    """What a warm-up leaves.

    Attributes:
        steps: how many there were.
        initial: the model with its initial weights.
        trained: the model after the last step.
        batches: fixed batches of the training data.
    """

    steps: int
    initial: nn.Module
    trained: nn.Module
    batches: FixedBatches


def warm_up(
    cfg: Config, steps: int | None, seed: int, work_dir: Path, bar: tqdm | None = None
) -> WarmUp:
    """Train the first steps of a config: its schedule and its hooks, without any evaluation.

    Args:
        cfg: the config; it is not changed.
        steps: how many; None: a tenth of all, but from 100 to 1000 where there are so many.
        seed: of initial weights, data order and augmentation, and of the fixed batches.
        work_dir: where a temporary folder is made, and removed at the end.
        bar: shows the progress.

    Raises:
        ValueError: the config trains fewer steps.
        KeyboardInterrupt: a signal asked for the end.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".warm_up.", dir=work_dir) as folder:
        runner = build_runner(_training_only(cfg, seed, folder))
        build_parts(runner)
        steps = _checked_steps(steps, runner.max_iters)
        loader = runner.train_dataloader
        batch_size = runner.cfg.train_dataloader.batch_size
        batches = FixedBatches(loader.dataset, loader.collate_fn, batch_size, seed)
        initial = copy.deepcopy(runner.model)  # before hooks are put on it
        trained = copy.deepcopy(runner.model)
        snapshots = _train(runner, steps, tqdm(disable=True) if bar is None else bar)
    initial.load_state_dict(snapshots.initial)
    trained.load_state_dict(snapshots.trained)
    del runner, loader
    gc.collect()  # ends the loader's workers
    torch.cuda.empty_cache()
    return WarmUp(steps, initial, trained, batches)


def _checked_steps(steps: int | None, most: int) -> int:
    if steps is None:
        return min(max(100, most // 10), 1000, most)
    if not 1 <= steps <= most:
        raise ValueError(
            f"warmup_steps must be 1 to {most}, the steps that the config trains, got {steps}"
        )
    return steps


def _training_only(cfg: Config, seed: int, folder: str) -> Config:
    own = Config(cfg.to_dict(), filename=cfg.filename)
    for key in ("val_dataloader", "val_cfg", "val_evaluator"):
        own.pop(key, None)
    own.work_dir, own.log_level, own.resume = folder, "WARNING", False
    own.randomness = {**(cfg.get("randomness") or {}), "seed": seed}
    hooks = own.get("default_hooks") or {}
    kept = {
        name: hook
        for name, hook in hooks.items()
        if hook and not str(hook.get("type")).endswith("ProgressHook")
    }
    own.default_hooks = {**kept, "checkpoint": None}
    return own


class _Done(Exception):
    """The last step is done."""


class _SnapshotHook(Hook):
    """Keeps the weights before the first step, and after the last one, when it ends training."""

    priority = "LOWEST"

    def __init__(self, steps: int, bar: tqdm) -> None:
        self.initial: dict[str, Tensor] = {}
        self.trained: dict[str, Tensor] = {}
        self._steps, self._bar = steps, bar

    def before_train(self, runner: Runner) -> None:
        self._bar.reset(self._steps)
        self.initial = copy.deepcopy(runner.model.state_dict())

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self._bar.update()
        if runner.iter + 1 >= self._steps:
            self.trained = copy.deepcopy(runner.model.state_dict())
            raise _Done


def _train(runner: Runner, steps: int, bar: tqdm) -> _SnapshotHook:
    stop, snapshots = StopHook(), _SnapshotHook(steps, bar)
    runner.register_hook(stop, priority="LOWEST")
    runner.register_hook(snapshots, priority="LOWEST")
    with stop.listening():
        try:
            runner.train()
        except _Done:
            pass
    return snapshots
