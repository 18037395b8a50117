"""Running a function on several ranks: real processes with gloo, forked from the tests."""

import multiprocessing
import os
import signal
import traceback

import pytest
import torch
import torch.distributed as dist


def on_ranks(function, folder, ranks=2):
    """Return what ``function(rank)`` returns on each rank; fail with the first traceback."""
    processes = start_ranks(function, folder, ranks)
    for process in processes:
        process.join(60)
    hung = [process for process in processes if process.exitcode is None]
    for process in hung:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    found = [torch.load(folder / f"rank{r}.pt", weights_only=False) for r in range(ranks)]
    errors = [each for each in found if isinstance(each, str)]
    if errors or hung:
        pytest.fail("\n".join(errors) or "a rank did not end", pytrace=False)
    return found


def start_ranks(function, folder, ranks=2):
    """Start the processes without waiting for them."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_work, args=(function, folder, rank, ranks)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    return processes


def _work(function, folder, rank, ranks):
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank))
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # of which mmengine warns
    log = os.open(folder / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.save("it did not end", folder / f"rank{rank}.pt")
    try:
        dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=ranks)
        found = function(rank)
    except BaseException:
        found = traceback.format_exc()
    torch.save(found, folder / f"rank{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()
    if isinstance(found, str):
        raise SystemExit(found)
