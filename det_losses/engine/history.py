"""history.jsonl: losses and metrics during training."""

import json
import os
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from det_losses.errors import InputError
from det_losses.files import finite, write_text
from det_losses.generators import generators_kept
from det_losses.registry import HOOKS


@HOOKS.register_module()
class HistoryHook(Hook):
    """Write ``work_dir/history.jsonl``: a line per ``interval`` steps and one per evaluation.

    ``{"kind": "train", "step", "epoch", "seconds", "losses": {...}, "lr"}`` holds means over the
    last ``interval`` steps, and the learning rate of the parameters that have the highest;
    ``{"kind": "val", "step", "epoch", "seconds", "metrics": {...}}`` holds an evaluation. ``step``
    is the number of finished steps, ``seconds`` the training time without
    evaluations, as in RunRecordHook. A resumed run removes the lines after its checkpoint and
    appends, so that it has the lines of an uninterrupted run: the checkpoint has the sums since the
    last line, and an evaluation that was due at the checkpoint is done before the next step if
    it has no line. Damaged lines are removed.

    Args:
        interval: Number of steps averaged per training line.
        filename: Name of the file in the run's work_dir.
    """

    priority = "LOW"  # before CheckpointHook, whose checkpoints store the sums

    def __init__(self, interval: int = 10, filename: str = "history.jsonl") -> None:
        if interval < 1:
            raise InputError(f"HistoryHook: interval must be at least 1, got {interval}")
        self.interval, self.filename = interval, filename
        self._training = False
        self._lacks_evaluation = False

    def before_train(self, runner: Runner) -> None:
        """Keep the lines of the steps before a resume; a new run starts with an empty file."""
        self._training = True
        self._file = os.path.join(runner.work_dir, self.filename)
        self._state = runner.message_hub.get_info("history", {"sums": {}, "count": 0})
        runner.message_hub.update_info("history", self._state)
        lacks = False
        if is_main_process():
            entries = []
            if runner.iter and os.path.isfile(self._file):
                entries = [each for each in _read(self._file) if each["step"] <= runner.iter]
                evaluated = [each["step"] for each in entries if each["kind"] == "val"]
                lacks = _evaluation_is_due(runner) and runner.iter not in evaluated
            write_text(self._file, "".join(map(_line, entries)))
        shared = [lacks]
        broadcast_object_list(shared)
        self._lacks_evaluation = shared[0]

    def before_train_epoch(self, runner: Runner) -> None:
        """Evaluate a resumed run if it was stopped before the evaluation at its checkpoint."""
        if self._lacks_evaluation:
            self._lacks_evaluation = False
            with generators_kept():
                runner.val_loop.run()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Accumulate the losses; write their means once per interval."""
        sums = self._state["sums"]
        for name, value in (outputs or {}).items():
            if "loss" in name:
                value = value.detach() if isinstance(value, Tensor) else value
                sums[name] = sums[name] + value if name in sums else value
        self._state["count"] += 1
        if self._state["count"] >= self.interval:
            self._write_losses(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the metrics of an evaluation."""
        if self._training:
            values = {name: float(value) for name, value in (metrics or {}).items()}
            self._append(runner, "val", runner.iter, {"metrics": values})

    def after_train(self, runner: Runner) -> None:
        """Write the means of the remaining steps."""
        if self._state["count"]:
            self._write_losses(runner, runner.iter)
        self._training = False

    def _write_losses(self, runner: Runner, step: int | None = None) -> None:
        count = self._state["count"]
        means = {name: float(total) / count for name, total in self._state["sums"].items()}
        step = runner.iter + 1 if step is None else step
        self._append(runner, "train", step, {"losses": means, "lr": _highest_rate(runner)})
        self._state.update(sums={}, count=0)

    def _append(self, runner: Runner, kind: str, step: int, values: dict[str, Any]) -> None:
        if not is_main_process():
            return
        seconds = runner.message_hub.get_info("train_seconds", 0.0)
        entry = {"kind": kind, "step": step, "epoch": runner.epoch, "seconds": seconds, **values}
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(_line(entry))


def _highest_rate(runner: Runner) -> float | None:
    """Return the learning rate of the parameter group that has the highest; None if unknown."""
    rates = runner.optim_wrapper.get_lr()
    every = [rate for name, own in rates.items() if name.endswith("lr") for rate in own]
    return max(every, default=None)


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(finite(entry)) + "\n"


def _read(path: str) -> list[dict[str, Any]]:
    """Return the lines of a file; damaged ones are left out."""
    entries = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("step"), int) and "kind" in entry:
                entries.append(entry)
    return entries


def _evaluation_is_due(runner: Runner) -> bool:
    """Return whether training evaluates after the last finished step, as mmengine's loops do."""
    loop = runner.train_loop
    if runner.val_loop is None:
        return False
    loop._decide_current_val_interval()
    done = runner.epoch if isinstance(loop, EpochBasedTrainLoop) else runner.iter
    return done >= loop.val_begin and done % loop.val_interval == 0
