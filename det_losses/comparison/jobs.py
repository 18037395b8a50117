"""How many runs train at the same time: measured as steps per second of all together.

    python -m det_losses.comparison.jobs CONFIG FOLDER NAME THREADS [DEVICE]

Each number of jobs is tried with as many processes, which train the first steps of a run at the
same time: each writes FOLDER/NAME.ready, waits for the file FOLDER/until with the time of the end,
and writes its result to FOLDER/NAME.json.
"""

import math
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from det_losses.comparison.process import Executor, LocalExecutor
from det_losses.engine.config_text import config_text
from det_losses.engine.device import device_options, use_device, uses_cuda
from det_losses.engine.run_time import WARM_UP, endless_steps, trial
from det_losses.files import read_json, write_json, write_text
from det_losses.models.fpn import FPNBackbone

WORTH = 180.0  # seconds of all runs, above which a measurement of about 10 s pays
_WINDOW = 2.0  # seconds of steps in a measurement
_GAIN = 1.05  # with less than this, twice as many jobs are not tried
_PATIENCE = 120.0  # seconds until the other processes are ready
_POLL = 0.02
_CONTEXT = 600 << 20  # bytes of a CUDA context
_MEMORY = 0.8  # of the free memory is used


@dataclass(frozen=True)
class Throughput:
    """What a number of jobs gives.

    Attributes:
        jobs: number of runs at the same time.
        steps: their training steps per second, all together.
        memory: bytes that one of them takes.
        free: bytes that are free without them.
    """

    jobs: int
    steps: float
    memory: int
    free: int

    def seconds(self, runs: int) -> float:
        """Return the time of a number of runs, in units of the steps of a run."""
        return math.ceil(runs / self.jobs) * self.jobs / self.steps


def fastest(found: Sequence[Throughput], runs: int) -> Throughput:
    """Return what trains all runs in the shortest time; of equals, the one with the fewest jobs.

    >>> alone, pair, four = (Throughput(n, s, 1, 9) for n, s in ((1, 2.0), (2, 3.0), (4, 3.5)))
    >>> [fastest([alone, pair, four], runs).jobs for runs in (1, 2, 4, 5)]
    [1, 2, 4, 2]
    """
    return min(found, key=lambda each: (each.seconds(runs), each.jobs))


def measure_jobs(cfg: Config, runs: int) -> list[Throughput]:
    """Measure 1, 2, 4, ... jobs, until more of them give no more, or cores or memory end.

    Args:
        cfg: the config of a run.
        runs: number of runs that are to be trained.

    Returns:
        The throughputs, in the order of the jobs; none if not even one run can train.
    """
    most = min(runs, (os.cpu_count() or 1) // (_given_threads() or 1))
    found: list[Throughput] = []
    with tempfile.TemporaryDirectory() as folder, closing(LocalExecutor()) as executor:
        config = Path(folder, "config.py")
        write_text(config, config_text(cfg))
        jobs = 1
        while jobs <= max(1, most):
            one = _measure(config, jobs, executor)
            if one is None:
                break
            found.append(one)
            if len(found) > 1 and one.steps < _GAIN * found[-2].steps:
                break
            following = min(2 * jobs, most)
            if following == jobs or following * one.memory > _MEMORY * one.free:
                break
            jobs = following
    return found


def _given_threads() -> int | None:
    """Return the threads of a run if the user has fixed them: OpenMP takes the first number."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(given) if given.isdecimal() and int(given) else None


def _measure(config: Path, jobs: int, executor: Executor) -> Throughput | None:
    """Return the throughput of a number of jobs, or None if one of them fails."""
    folder = config.parent / f"{jobs}_jobs"
    folder.mkdir()
    threads = _given_threads() or max(1, (os.cpu_count() or 1) // jobs)
    module = [sys.executable, "-m", __name__, str(config), str(folder)]
    stop = threading.Event()

    def tick() -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    with ThreadPoolExecutor(jobs) as pool:
        futures = [
            pool.submit(
                executor.run,
                [*module, str(number), str(threads), *device_options()[1:]],
                folder / "log",
                tick,
            )
            for number in range(jobs)
        ]
        try:
            while len(list(folder.glob("*.ready"))) < jobs:
                if wait(futures, timeout=_POLL, return_when=FIRST_COMPLETED).done:
                    return None  # it failed
            write_text(folder / "until", str(time.time() + _WINDOW))
            if any(future.result() != 0 for future in futures):
                return None
        finally:
            stop.set()
    results = [read_json(folder / f"{number}.json") for number in range(jobs)]
    return Throughput(
        jobs,
        sum(result["steps"] for result in results),
        max(result["memory"] for result in results),
        min(result["free"] for result in results),
    )


def train_steps(config: Path, folder: Path, name: str, threads: int) -> None:
    """Train a run's first steps, at the same time as others."""
    torch.set_num_threads(threads)
    with trial(Config.fromfile(config)) as (runner, _):
        steps = endless_steps(runner.model, runner.optim_wrapper, runner.train_dataloader)
        for _ in range(WARM_UP):
            next(steps)
        (folder / f"{name}.ready").touch()
        until = _wait_for(folder / "until")
        count, begin = 0, time.time()
        while time.time() < until:
            next(steps)
            count += 1
        rate = count / (time.time() - begin)
        memory, free = _memory(runner.model)
    write_json(folder / f"{name}.json", {"steps": rate, "memory": memory, "free": free})


def _wait_for(file: Path) -> float:
    give_up = time.time() + _PATIENCE
    while not file.exists():
        if time.time() > give_up:
            raise TimeoutError(f"{file} was not written in {_PATIENCE:.0f} s")
        time.sleep(_POLL)
    return float(file.read_text())


def _memory(model: nn.Module) -> tuple[int, int]:
    """Return the bytes that this process will take, and those that were free without it."""
    if uses_cuda():
        own = torch.cuda.max_memory_reserved() + _CONTEXT
        return own, torch.cuda.mem_get_info()[0] + own
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    caches = (each.cache for each in model.modules() if isinstance(each, FPNBackbone))
    growth = sum(2**20 * (each.mebibytes - each.size) for each in caches if each is not None)
    return own + int(growth), _available() + own


def _available() -> int:
    """Return the bytes of memory that are free or can be freed; unlimited where Linux is not."""
    file = Path("/proc/meminfo")
    for line in file.read_text().splitlines() if file.is_file() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return sys.maxsize // 2


def main(arguments: Sequence[str]) -> None:
    """Train steps as the command line says."""
    config, folder, name, threads, *device = arguments
    use_device(device[0] if device else None)
    train_steps(Path(config), Path(folder), name, int(threads))


if __name__ == "__main__":
    main(sys.argv[1:])
