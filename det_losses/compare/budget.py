"""The time budget: an estimate of the time per run, and the seeds that fit."""

import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, Runner

from det_losses.compare.variants import Variant
from det_losses.engine.build import build_runner
from det_losses.engine.run import build_parts
from det_losses.errors import InputError
from det_losses.report.formats import duration

WARM_UP, TIMED = 2, 6  # training steps of a measurement
_START = 10.0  # seconds for a process to start and import torch
_LIMIT = 10.0  # seconds of steps after which a measurement ends
_MOST_EVALUATION = 0.2  # of the training time


@dataclass
class Budget:
    """The time that a command may take.

    Attributes:
        seconds: length of the budget, counted from its construction.
        run_seconds: estimated time of one whole training, used until a run has finished.
        jobs: number of parallel runs.
    """

    seconds: float
    run_seconds: float
    jobs: int
    start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.seconds - (time.monotonic() - self.start)

    def allows_run(self, finished: Sequence[float], share: float = 1.0) -> bool:
        """Return whether one more run is expected to finish in time.

        Args:
            finished: seconds of finished runs, if they were whole trainings.
            share: the fraction of a whole training that the run trains.
        """
        expected = sum(finished) / len(finished) if finished else self.run_seconds
        return share * expected <= self.left

    def seeds(
        self, unfinished: Callable[[int], float], given: Sequence[int] | None, limit: int = 10
    ) -> list[int]:
        """Return the seeds that fit in the budget, in order.

        Args:
            unfinished: seed -> number of its runs that are not finished, in whole trainings.
            given: the seeds given by the user; None: 0, 1, ...
            limit: maximum number of seeds if the user gave none.

        Raises:
            InputError: not even the first seed fits.
        """
        wanted = list(given) if given is not None else list(range(limit))
        runs = list(itertools.accumulate(map(unfinished, wanted)))
        fit = [
            seed
            for seed, count in zip(wanted, runs, strict=True)
            if self._seconds_of(count) <= self.left
        ]
        if not fit:
            raise InputError(
                f"--budget {duration(self.seconds)}: one seed needs {runs[0]:.3g} runs and about "
                f"{duration(self._seconds_of(runs[0]))} ({duration(self.run_seconds)} per run). "
                "Compare fewer variants, shorten the runs (--cfg-options train_cfg.max_epochs=...) "
                "or increase the budget"
            )
        return fit

    def for_part(self, fraction: float) -> "Budget":
        """Return a budget with the same end, for runs shortened to a fraction of their length."""
        return replace(self, run_seconds=self.run_seconds * fraction)

    def _seconds_of(self, runs: float) -> float:
        return math.ceil(runs / self.jobs) * self.run_seconds


@dataclass(frozen=True)
class RunTime:
    """What a run is expected to take.

    Attributes:
        start: seconds until training begins.
        training: seconds of all steps.
        evaluation: seconds of all evaluations.
        evaluations: their number.
    """

    start: float
    training: float
    evaluation: float
    evaluations: int

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.start + self.training + self.evaluation

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


def measure_run(cfg: Config, variant: Variant, jobs: int) -> RunTime:
    """Estimate the time of a run from a few training steps and one evaluated batch.

    Args:
        cfg: the config of the comparison.
        variant: the variant to measure.
        jobs: number of parallel runs, which share the cores.
    """
    with tempfile.TemporaryDirectory() as folder, _threads(jobs):
        begin = time.perf_counter()
        own = variant.apply(cfg)
        own.work_dir, own.log_level = folder, "WARNING"
        runner = build_runner(own)
        build_parts(runner)
        built = time.perf_counter() - begin
        step = _time_steps(runner)
        evaluation = _time_evaluation(runner)
    loop = runner.train_loop
    length = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    evaluations = math.ceil(length / loop.val_interval)
    training = step * runner.max_iters
    return RunTime(_START + built, training, evaluation * evaluations, evaluations)


def _time_steps(runner: Runner) -> float:
    """Return the mean seconds of a step, of those that the time limit allows."""
    runner.model.train()
    seconds: list[float] = []
    batches = _endless(runner.train_dataloader)
    while len(seconds) < WARM_UP + TIMED and (len(seconds) < 2 or sum(seconds) < _LIMIT):
        begin = time.perf_counter()
        runner.model.train_step(next(batches), runner.optim_wrapper)
        _synchronise()
        seconds.append(time.perf_counter() - begin)
    timed = seconds[min(WARM_UP, len(seconds) - 1) :]
    return sum(timed) / len(timed)


def _time_evaluation(runner: Runner) -> float:
    if runner.val_loop is None:
        return 0.0
    runner.model.eval()
    loader = runner.val_dataloader
    begin = time.perf_counter()
    with torch.no_grad():
        runner.model.val_step(next(iter(loader)))
    _synchronise()
    return (time.perf_counter() - begin) * len(loader)


def _endless(loader: torch.utils.data.DataLoader) -> Iterator[object]:
    while True:
        yield from loader


def _synchronise() -> None:
    if torch.cuda.is_available():
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
