"""The warm-up of a matching: the first steps of a training, in memory."""

import contextlib
import copy
import gc
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from tqdm import tqdm

from det_losses.comparison.gradient_norm import FixedBatches
from det_losses.engine.build import build_runner
from det_losses.engine.run import build_parts
from det_losses.engine.runner import shows_bar
from det_losses.engine.signals import StopHook
from det_losses.errors import InputError

LEAST_BATCHES = 8


BATCHES = 256


LONGEST_WARM_UP = 1000  # steps


# Of the steps of a run. A batch costs about as much as a step: it passes through the model once for
# each space of losses, without a backward pass. With the start, this is about a tenth of a run.
_WARM_UP_SHARE, _BATCH_SHARE = 0.04, 0.03


def effort(training_steps: int, warmup_steps: int | None = None) -> tuple[int, int]:
    """Return the steps of the warm-up and the number of batches for a training of some length.

    Together they take about a tenth of the training. A given warm-up that is longer is that of an
    earlier version, whose losses were measured on 256 batches.

    Args:
        training_steps: steps of a run.
        warmup_steps: a given number of steps.
    """
    steps = min(max(1, int(_WARM_UP_SHARE * training_steps)), LONGEST_WARM_UP)
    batches = min(max(LEAST_BATCHES, int(_BATCH_SHARE * training_steps)), BATCHES)
    if warmup_steps is not None and warmup_steps > steps:
        return warmup_steps, BATCHES
    return warmup_steps or steps, batches


class Lines:
    """Progress as plain lines, one every few seconds, where no terminal shows a bar."""

    def __init__(self, title: str, seconds: float = 10.0) -> None:
        self.title, self.seconds = title, seconds
        self.n = self.total = 0

    def set_description(self, title: str) -> None:
        """Set the start of the lines."""
        self.title = title

    def reset(self, total: int) -> None:
        """Start to count up to a total."""
        self.n, self.total, self._due = 0, total, time.monotonic() + self.seconds

    def update(self) -> None:
        """Count one, and print a line if it is time."""
        self.n += 1
        if self.n == self.total or time.monotonic() >= self._due:
            self._due = time.monotonic() + self.seconds
            print(f"  {self.title}: {self.n}/{self.total}", flush=True)


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[tqdm | Lines]:
    """Yield a bar on a terminal, or else plain lines."""
    if shows_bar():
        with tqdm(desc=title, leave=False) as bar:
            yield bar
    else:
        yield Lines(title)


@dataclass(frozen=True)
class WarmUp:
    """The result of a warm-up.

    Attributes:
        steps: number of steps.
        training_steps: number of steps of a whole training.
        initial: the model with its initial weights.
        trained: the model after the last step.
        batches: fixed batches of the training data.
    """

    steps: int
    training_steps: int
    initial: nn.Module
    trained: nn.Module
    batches: FixedBatches


def warm_up(
    cfg: Config, steps: int | None, seed: int, work_dir: Path, bar: tqdm | Lines | None = None
) -> WarmUp:
    """Train the first steps of a config in memory, with its schedule and hooks, without evaluation.

    Args:
        cfg: the config; it is not changed.
        steps: number of steps; None: see :func:`effort`.
        seed: seed of initial weights, data order, augmentation and fixed batches.
        work_dir: parent of a temporary folder, which is removed at the end.
        bar: progress bar.

    Raises:
        InputError: the config trains fewer steps.
        KeyboardInterrupt: on a signal.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".warm_up.", dir=work_dir) as folder:
        runner = build_runner(_training_only(cfg, seed, folder))
        build_parts(runner)
        training_steps = runner.max_iters
        steps = _checked_steps(steps, training_steps)
        loader = runner.train_dataloader
        batch_size = runner.cfg.train_dataloader.batch_size
        batches = FixedBatches(loader.dataset, loader.collate_fn, batch_size, seed)
        initial = copy.deepcopy(runner.model)  # before hooks are registered on it
        trained = copy.deepcopy(runner.model)
        snapshots = _train(runner, steps, tqdm(disable=True) if bar is None else bar)
    initial.load_state_dict(snapshots.initial)
    trained.load_state_dict(snapshots.trained)
    del runner, loader
    gc.collect()  # ends the loader's workers
    torch.cuda.empty_cache()
    return WarmUp(steps, training_steps, initial, trained, batches)


def _checked_steps(steps: int | None, most: int) -> int:
    if steps is None:
        return effort(most)[0]
    if not 1 <= steps <= most:
        raise InputError(
            f"warmup_steps must be from 1 to {most}, the training steps of the config, got {steps}"
        )
    return steps


def _training_only(cfg: Config, seed: int, folder: str) -> Config:
    own = copy.deepcopy(cfg)
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


class _WarmUpDone(Exception):
    """The last step of the warm-up is done."""


class _SnapshotHook(Hook):
    """Stores the weights before the first and after the last step, and then ends training."""

    priority = "LOWEST"

    def __init__(self, steps: int, bar: tqdm | Lines) -> None:
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
            raise _WarmUpDone


def _train(runner: Runner, steps: int, bar: tqdm | Lines) -> _SnapshotHook:
    stop, snapshots = StopHook(), _SnapshotHook(steps, bar)
    runner.register_hook(stop, priority="LOWEST")
    runner.register_hook(snapshots, priority="LOWEST")
    with stop.listening(), contextlib.suppress(_WarmUpDone):
        runner.train()
    return snapshots
