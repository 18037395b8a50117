"""metrics.json: what a finished run came to, for those who compare runs."""

import math
import os
import resource
import sys
import time
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from det_losses.engine.active_losses import losses_of
from det_losses.files import write_json
from det_losses.registry import HOOKS


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Keep ``work_dir/metrics.json`` up to date: after each evaluation and at the end of training.

    Fields: ``status`` ("running", "done"), ``epoch``, ``iter``, ``max_epochs``, ``seed``,
    ``losses`` (slot -> loss with its parameters), ``metrics`` (of the last evaluation; null where
    there is no ground truth), ``metrics_epoch``, ``train_seconds`` (wall clock of the training
    epochs, evaluations not counted), ``peak_memory_mb`` and ``peak_memory_kind`` ("cuda": most
    memory allocated on the GPU; "rss": most resident memory of the training process).

    A resumed run goes on counting. Where the last evaluation is missing, as after an interrupt
    between the last checkpoint and it, it is made up for.

    Args:
        filename: Name of the file in the run's work_dir.
    """

    priority = "LOW"  # before CheckpointHook, whose checkpoints carry the time and memory used

    def __init__(self, filename: str = "metrics.json") -> None:
        self.filename = filename
        self._training = False
        self._seconds = 0.0
        self._peak_memory = 0.0
        self._clock: float | None = None
        self._metrics: dict[str, float] = {}
        self._metrics_iter: int | None = None
        self._metrics_epoch: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Take up what a resumed run has used so far."""
        self._training = True
        self._seconds = runner.message_hub.get_info("train_seconds", 0.0)
        self._peak_memory = runner.message_hub.get_info("peak_memory_mb", 0.0)

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self._clock = time.perf_counter()

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop the clock, and leave time and memory to the checkpoint."""
        self._stop_clock()
        self._store(runner)

    def before_val(self, runner: Runner) -> None:
        """Stop the clock inside an epoch, as a loop by iterations evaluates there."""
        self._resume_after_val = self._clock is not None
        self._stop_clock()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the metrics and write the file."""
        if self._training:
            self._metrics = dict(metrics or {})
            self._metrics_iter, self._metrics_epoch = runner.iter, runner.epoch
            self._write(runner, "running")

    def after_val(self, runner: Runner) -> None:
        """Let the clock run on."""
        if self._resume_after_val:
            self._clock = time.perf_counter()

    def after_train(self, runner: Runner) -> None:
        """Write the final file."""
        if runner.val_loop is not None and self._metrics_iter != runner.iter:
            runner.val_loop.run()
        self._write(runner, "done")
        self._training = False

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._seconds += time.perf_counter() - self._clock
        self._clock = None

    def _store(self, runner: Runner) -> None:
        self._peak_memory = max(self._peak_memory, peak_memory()[0])
        runner.message_hub.update_info("train_seconds", self._seconds)
        runner.message_hub.update_info("peak_memory_mb", self._peak_memory)

    def _write(self, runner: Runner, status: str) -> None:
        self._store(runner)
        if not is_main_process():
            return
        record = {
            "status": status,
            "epoch": runner.epoch,
            "iter": runner.iter,
            "max_epochs": runner.max_epochs,
            "seed": runner.seed,
            "losses": {slot: repr(loss) for slot, loss in losses_of(runner.model).items()},
            "metrics": {name: _or_null(value) for name, value in self._metrics.items()},
            "metrics_epoch": self._metrics_epoch,
            "train_seconds": self._seconds,
            "peak_memory_mb": self._peak_memory,
            "peak_memory_kind": peak_memory()[1],
        }
        write_json(os.path.join(runner.work_dir, self.filename), record, indent=2)


def peak_memory() -> tuple[float, str]:
    """Return the most memory used so far in MiB, and of which kind: ``"cuda"`` or ``"rss"``."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20, "cuda"
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10), "rss"


def _or_null(value: Any) -> Any:
    value = float(value)
    return value if math.isfinite(value) else None
