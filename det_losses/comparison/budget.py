"""The time budget of a comparison, and the seeds that fit into it."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from det_losses.errors import InputError
from det_losses.report.formats import duration


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
