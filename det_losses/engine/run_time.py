"""What a run is expected to take: time and disk space, from a few timed steps."""

import copy
import gc
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from det_losses.engine.build import build_runner
from det_losses.engine.device import uses_cuda
from det_losses.engine.run import build_parts
from det_losses.generators import generators_kept

WARM_UP, TIMED = 2, 4  # training steps of a measurement
_START = 3.0  # seconds for a process to start and import torch; 2 s of CPU time were measured
_LIMIT = 5.0  # seconds of steps after which a measurement ends
_MOST_EVALUATION = 0.2  # of the training time
_FILES = 2  # checkpoints, if their number is not limited
_DETECTIONS = 3000  # bytes of an image's detections in their json


@dataclass(frozen=True)
class RunTime:
    """What a run is expected to take.

    Attributes:
        start: seconds until training begins.
        training: seconds of all steps.
        evaluation: seconds of all evaluations.
        evaluations: their number.
        disk: bytes of the files of a run.
    """

    start: float
    training: float
    evaluation: float
    evaluations: int
    disk: int = 0

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.start + self.training + self.evaluation

    def slowed(self, factor: float) -> "RunTime":
        """Return what a run takes whose steps and evaluations take this many times as long."""
        training, evaluation = factor * self.training, factor * self.evaluation
        return replace(self, training=training, evaluation=evaluation)

    @property
    def note(self) -> str | None:
        """A sentence if evaluation is expensive: how to evaluate less."""
        share = self.evaluation / self.training
        if share <= _MOST_EVALUATION:
            return None
        key = "val_dataloader.dataset.num_images=N evaluates fewer images"
        if self.evaluations > 1:
            key = "train_cfg.val_interval=N evaluates less often"
        return f"Evaluation will take {share:.0%} of the training time; {key}"


@contextmanager
def trial(cfg: Config) -> Iterator[tuple[Runner, float]]:
    """Build a run for trial in a temporary folder; yield its runner and the seconds this took.

    The config, the random generators and the run itself are not affected.
    """
    with tempfile.TemporaryDirectory() as folder, generators_kept():
        begin = time.perf_counter()
        own = copy.deepcopy(cfg)
        own.work_dir, own.log_level, own.resume, own.load_from = folder, "WARNING", False, None
        runner = build_runner(own)
        build_parts(runner)
        yield runner, time.perf_counter() - begin
        del runner
    _free_memory()


def measure_run(cfg: Config, jobs: int = 1) -> RunTime:
    """Estimate what a run takes, from a few training steps and one evaluated batch.

    Args:
        cfg: the config of the run; it is not changed.
        jobs: number of parallel runs, which share the cores.
    """
    with _threads(jobs), trial(cfg) as (runner, built):
        return measure(runner, built)


def measure(runner: Runner, built: float) -> RunTime:
    """Estimate what a run takes; the runner and the random generators are not affected.

    Args:
        runner: with its parts built, see :func:`~det_losses.engine.run.build_parts`.
        built: seconds that building it took.
    """
    with generators_kept():
        model, wrapper = copy.deepcopy((runner.model, runner.optim_wrapper))
        step = _time_steps(model, wrapper, _new_loader(runner, "train"))
        evaluation = _time_evaluation(model, _new_loader(runner, "val")) if runner.val_loop else 0.0
    disk = _disk(runner, model, wrapper)
    del model, wrapper
    _free_memory()
    loop = runner.train_loop
    length = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    evaluations = math.ceil(length / loop.val_interval) if runner.val_loop else 0
    return RunTime(
        start=_START + built,
        training=step * runner.max_iters,
        evaluation=evaluation * evaluations,
        evaluations=evaluations,
        disk=disk,
    )


def _free_memory() -> None:
    """Free the memory of a GPU, which the run needs."""
    if uses_cuda():
        gc.collect()
        torch.cuda.empty_cache()


def _new_loader(runner: Runner, split: str) -> DataLoader:
    """Return a dataloader of the run's data; workers and sampler of the run's own are not used."""
    return runner.build_dataloader(runner.cfg[f"{split}_dataloader"], seed=runner.seed)


def _disk(runner: Runner, model: nn.Module, wrapper: OptimWrapper) -> int:
    """Return the bytes of the checkpoints that a run keeps, and of its detections."""
    tensors = [*model.state_dict().values(), *_tensors(wrapper.state_dict())]
    checkpoint = sum(each.numel() * each.element_size() for each in tensors)
    hooks = [each for each in runner.hooks if isinstance(each, CheckpointHook)]
    kept = sum(each.max_keep_ckpts if each.max_keep_ckpts > 0 else _FILES for each in hooks)
    images = len(runner.val_dataloader.dataset) if runner.val_loop else 0
    return checkpoint * kept + images * _DETECTIONS


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(each)


def _time_steps(model: nn.Module, wrapper: OptimWrapper, loader: DataLoader) -> float:
    """Return the mean seconds of a step, of those that the time limit allows."""
    seconds: list[float] = []
    steps = endless_steps(model, wrapper, loader)
    while len(seconds) < WARM_UP + TIMED and (len(seconds) < 2 or sum(seconds) < _LIMIT):
        begin = time.perf_counter()
        next(steps)
        seconds.append(time.perf_counter() - begin)
    timed = seconds[min(WARM_UP, len(seconds) - 1) :]
    return sum(timed) / len(timed)


def _time_evaluation(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    begin = time.perf_counter()
    with torch.no_grad():
        model.val_step(next(iter(loader)))
    _synchronise()
    return (time.perf_counter() - begin) * len(loader)


def endless_steps(model: nn.Module, wrapper: OptimWrapper, loader: DataLoader) -> Iterator[None]:
    """Train step after step, and yield after each."""
    model.train()
    for batch in _endless(loader):
        model.train_step(batch, wrapper)
        _synchronise()
        yield


def _endless(loader: DataLoader) -> Iterator[object]:
    while True:
        yield from loader


def _synchronise() -> None:
    if uses_cuda():
        torch.cuda.synchronize()


@contextmanager
def _threads(jobs: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)
