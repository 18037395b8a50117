"""history.jsonl: losses and metrics during training."""

import json
import os
from collections import defaultdict
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from det_losses.errors import InputError
from det_losses.files import finite, write_text
from det_losses.registry import HOOKS


@HOOKS.register_module()
class HistoryHook(Hook):
    """Write ``work_dir/history.jsonl``: a line per ``interval`` steps and one per evaluation.

    ``{"kind": "train", "step", "epoch", "seconds", "losses": {...}}`` holds means over the last
    ``interval`` steps; ``{"kind": "val", "step", "epoch", "seconds", "metrics": {...}}`` holds an
    evaluation. ``step`` is the number of finished steps, ``seconds`` the training time without
    evaluations, as in RunRecordHook. A resumed run removes the lines after its checkpoint and
    appends.

    Args:
        interval: Number of steps averaged per training line.
        filename: Name of the file in the run's work_dir.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int = 10, filename: str = "history.jsonl") -> None:
        if interval < 1:
            raise InputError(f"HistoryHook: interval must be at least 1, got {interval}")
        self.interval, self.filename = interval, filename
        self._training = False
        self._sums: dict[str, Any] = defaultdict(float)
        self._count = 0

    def before_train(self, runner: Runner) -> None:
        """Keep the lines of the steps before a resume; a new run starts with an empty file."""
        self._training = True
        self._file = os.path.join(runner.work_dir, self.filename)
        if not is_main_process():
            return
        lines = []
        if runner.iter and os.path.isfile(self._file):
            with open(self._file, encoding="utf-8") as file:
                lines = [line for line in file if _step(line) <= runner.iter]
        write_text(self._file, "".join(lines))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Accumulate the losses; write their means once per interval."""
        for name, value in (outputs or {}).items():
            if "loss" in name:
                self._sums[name] += value.detach() if isinstance(value, Tensor) else value
        self._count += 1
        if self._count == self.interval:
            self._write_losses(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the metrics of an evaluation."""
        if self._training:
            values = {name: float(value) for name, value in (metrics or {}).items()}
            self._append(runner, "val", runner.iter, {"metrics": values})

    def after_train(self, runner: Runner) -> None:
        """Write the means of the remaining steps."""
        if self._count:
            self._write_losses(runner, runner.iter)
        self._training = False

    def _write_losses(self, runner: Runner, step: int | None = None) -> None:
        means = {name: float(total) / self._count for name, total in self._sums.items()}
        self._append(runner, "train", runner.iter + 1 if step is None else step, {"losses": means})
        self._sums.clear()
        self._count = 0

    def _append(self, runner: Runner, kind: str, step: int, values: dict[str, Any]) -> None:
        if not is_main_process():
            return
        seconds = runner.message_hub.get_info("train_seconds", 0.0)
        entry = {"kind": kind, "step": step, "epoch": runner.epoch, "seconds": seconds, **values}
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(json.dumps(finite(entry)) + "\n")


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # the process was killed while it wrote this line
        return float("inf")
