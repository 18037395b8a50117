"""metrics.json: results, training time and memory of a run."""

import hashlib
import math
import os
import resource
import statistics
import sys
import time
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from det_losses.engine.device import uses_cuda
from det_losses.engine.loss_record import losses_of
from det_losses.engine.pretrained import loaded_weights
from det_losses.files import write_json
from det_losses.registry import HOOKS

WARM_UP = 5  # steps not timed after each start: caches, algorithm selection, workers
CAPACITY = 1000


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Write ``work_dir/metrics.json`` after each evaluation and at the end of training.

    Fields: ``status`` ("running", "done"), ``epoch``, ``iter``, ``max_epochs``, ``seed``,
    ``losses`` (slot -> loss with its parameters), ``metrics`` (of the last evaluation; null without
    ground truth), ``metrics_epoch``, ``train_seconds`` (wall-clock time of the training epochs,
    without evaluations), ``seconds_per_iteration`` (median wall-clock time of a step with data
    loading; null if there was no step after the warm-up), ``peak_memory_mb`` and
    ``peak_memory_kind`` ("cuda": memory allocated on the GPU; "rss": resident memory of the
    training process), ``initial_weights`` (:func:`weights_hash` after loading, before the first
    step), ``weights`` (the record of the weights that training started from, see
    :func:`~det_losses.models.weights.load_pretrained`; null without any) and ``proof`` (see
    :class:`~det_losses.engine.loss_record.LossRecordHook`). A run that was forked from another one
    (:class:`~det_losses.engine.fork.ForkHook`) also has ``fork``; its times are its own, and its
    ``initial_weights`` are those of the other run.

    A resumed run continues to count. If a run was interrupted between its last checkpoint and the
    last evaluation, the evaluation is done at the end of the resumed run.

    Args:
        filename: Name of the file in the run's work_dir.
    """

    priority = "LOW"  # before CheckpointHook, whose checkpoints store time and memory

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
        """Restore time and memory of a resumed run, or hash the initial weights of a new one."""
        self._training = True
        hub = runner.message_hub
        self._seconds = hub.get_info("train_seconds", 0.0)
        self._peak_memory = hub.get_info("peak_memory_mb", 0.0)
        self._steps = StepTimes(hub.get_info("step_times"))
        hub.update_info("step_times", self._steps.state)
        if runner.iter == 0:
            hub.update_info("initial_weights", weights_hash(runner.model))
            hub.update_info("weights", loaded_weights(runner.model))
        if uses_cuda():
            torch.cuda.reset_peak_memory_stats()  # count training only

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self._start_clock()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Record the time of a step."""
        last = self._clock
        self._stop_clock()
        self._start_clock()
        self._steps.add(self._clock - last)
        runner.message_hub.update_info("train_seconds", self._seconds)

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop the clock, and store time and memory in the checkpoint."""
        self._stop_clock()
        self._store(runner)

    def before_val(self, runner: Runner) -> None:
        """Stop the clock; an iteration-based loop evaluates within an epoch."""
        self._resume_after_val = self._clock is not None
        self._stop_clock()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Store the metrics and write the file."""
        if self._training:
            self._metrics = dict(metrics or {})
            self._metrics_iter, self._metrics_epoch = runner.iter, runner.epoch
            self._store(runner)
            self._write(runner, "running")

    def after_val(self, runner: Runner) -> None:
        """Restart the clock."""
        if self._resume_after_val:
            self._start_clock()

    def after_train(self, runner: Runner) -> None:
        """Write the final file."""
        if runner.val_loop is not None and self._metrics_iter != runner.iter:
            runner.val_loop.run()
        self._write(runner, "done")
        self._training = False

    def _start_clock(self) -> None:
        self._clock = time.perf_counter()

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._seconds += time.perf_counter() - self._clock
        self._clock = None

    def _store(self, runner: Runner) -> None:
        self._peak_memory = max(self._peak_memory, peak_memory()[0])
        runner.message_hub.update_info("train_seconds", self._seconds)
        runner.message_hub.update_info("peak_memory_mb", self._peak_memory)

    def _write(self, runner: Runner, status: str) -> None:
        if not is_main_process():
            return
        record = {
            "status": status,
            "epoch": runner.epoch,
            "iter": runner.iter,
            "max_epochs": runner.max_epochs,
            "seed": runner.seed,
            "losses": {slot: repr(loss) for slot, loss in losses_of(runner.model).items()},
            "metrics": {name: finite_or_none(value) for name, value in self._metrics.items()},
            "metrics_epoch": self._metrics_epoch,
            "train_seconds": self._seconds,
            "seconds_per_iteration": self._steps.median(),
            "peak_memory_mb": self._peak_memory,
            "peak_memory_kind": peak_memory()[1],
            "initial_weights": runner.message_hub.get_info("initial_weights"),
            "weights": runner.message_hub.get_info("weights"),
            "proof": runner.message_hub.get_info("loss_proof", {}),
        }
        if "fork" in runner.message_hub.runtime_info:
            record["fork"] = runner.message_hub.get_info("fork")
        write_json(os.path.join(runner.work_dir, self.filename), record, indent=2)


class StepTimes:
    """The median wall-clock time of a training step, over evenly spaced steps of the whole run.

    At most ``CAPACITY`` times are stored. When they are full, every second one is removed, and from
    then on only every second step is stored, and so on.

    Args:
        state: the ``state`` of the run to be resumed; None for a new run.

    Attributes:
        state: plain values for a checkpoint.
    """

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state = state or {"seconds": [], "stride": 1, "count": 0}
        self._warm_up = WARM_UP

    def add(self, seconds: float) -> None:
        """Add the time of the next step; warm-up steps are ignored."""
        if self._warm_up:
            self._warm_up -= 1
            return
        kept, stride = self.state["seconds"], self.state["stride"]
        if self.state["count"] % stride == 0:
            kept.append(seconds)
        self.state["count"] += 1
        if len(kept) > CAPACITY:
            self.state.update(seconds=kept[::2], stride=2 * stride)

    def median(self) -> float | None:
        """Return the median in seconds; None if there was no step after the warm-up."""
        return statistics.median(self.state["seconds"]) if self.state["seconds"] else None


def weights_hash(model: nn.Module) -> str:
    """Return the sha256 of a model's state_dict: names, dtypes, shapes and bytes.

    The state of losses (``losses.*``) is left out, so that detectors that differ only in their
    losses have equal hashes.

    Args:
        model: a model, or its DDP wrapper.
    """
    model = getattr(model, "module", model)
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor) and not name.startswith("losses."):
            value = value.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def peak_memory() -> tuple[float, str]:
    """Return the peak memory so far in MiB and its kind: ``"cuda"`` or ``"rss"``."""
    if uses_cuda():
        return torch.cuda.max_memory_allocated() / 2**20, "cuda"
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10), "rss"


def finite_or_none(value: Any) -> float | None:
    """Return a float, or None for NaN and infinity, which JSON cannot represent."""
    value = float(value)
    return value if math.isfinite(value) else None
