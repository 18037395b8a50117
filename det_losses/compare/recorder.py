"""How far a run is, for the comparison that waits for it."""

import time
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from det_losses.compare.files import write_json

PROGRESS_FILE = "progress.json"


class ProgressFileHook(Hook):
    """Keep ``progress.json`` up to date: step, steps, epoch, epochs, loss, AP.

    Args:
        work_dir: the run's directory.
        interval: seconds that pass at least between two writes.
    """

    priority = "VERY_LOW"

    def __init__(self, work_dir: Path, interval: float = 1.0) -> None:
        self._file = work_dir / PROGRESS_FILE
        self._interval = interval
        self._written = float("-inf")
        self._ap: float | None = None

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Write the progress, at most once an interval."""
        if time.perf_counter() - self._written >= self._interval:
            self._write(runner, runner.iter + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the AP."""
        self._ap = (metrics or {}).get("AP")
        self._write(runner, runner.iter)

    def _write(self, runner: Runner, step: int) -> None:
        if not is_main_process():
            return
        self._written = time.perf_counter()
        scalars = runner.message_hub.log_scalars
        loss = scalars["train/loss"].current() if "train/loss" in scalars else None
        progress = {
            "step": step,
            "steps": runner.max_iters,
            "epoch": runner.epoch,
            "epochs": runner.max_epochs,
            "loss": None if loss is None else float(loss),
            "AP": self._ap,
        }
        write_json(self._file, progress)
