"""Ends a process of a distributed training when another one has died."""

import atexit
import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

from mmengine.dist import all_gather_object, broadcast_object_list, get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.distributed import TCPStore

from det_losses.errors import InputError
from det_losses.registry import HOOKS

_BEATS = 25  # signs of life that are missing when a process counts as dead


@HOOKS.register_module()
class RankWatchHook(Hook):
    """Ends this process with the reason if another rank dies or can no longer be reached.

    torchrun and ``srun --kill-on-bad-exit`` end the ranks of one job. But a rank whose machine or
    network fails leaves the others waiting in a collective operation, with NCCL for ten minutes. So
    a thread of each rank counts in a store on rank 0, which all ranks read. A rank that is busy
    keeps counting, however long its step or evaluation takes, unless native code holds Python's
    lock. A distributed training has this hook, with the defaults unless ``custom_hooks`` has one.

    Args:
        patience: seconds without a sign of life after which a rank counts as dead.
    """

    priority = "VERY_HIGH"

    def __init__(self, patience: float = 50) -> None:
        if not patience > 0:
            raise InputError(f"RankWatchHook: patience must be above 0, got {patience!r}")
        self.patience = patience

    def before_run(self, runner: Runner) -> None:
        """Start the thread."""
        rank, ranks = get_dist_info()
        self._store = _common_store(rank, timedelta(seconds=self.patience))
        # After each rank has its entry in the store.
        names = all_gather_object(
            f"rank {rank} of {ranks} (process {os.getpid()} on {socket.gethostname()})"
        )
        self._rank, self._ended = rank, threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(names,), daemon=True)
        self._thread.start()
        atexit.register(self._end_thread)  # a thread in native code aborts the interpreter's exit

    def after_run(self, runner: Runner) -> None:
        """End the thread, and let the others know that this rank is done."""
        self._end_thread()
        with contextlib.suppress(RuntimeError):  # rank 0, which has the store, may have ended
            self._store.set(f"rank {self._rank}", "done")

    def _end_thread(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self, names: Sequence[str]) -> None:
        others = [index for index in range(len(names)) if index != self._rank]
        seen, silent, beat = dict.fromkeys(others, b""), dict.fromkeys(others, 0), 0
        while not self._ended.wait(self.patience / _BEATS):
            beat += 1
            try:
                self._store.set(f"rank {self._rank}", str(beat))
                found = {i: self._store.get(f"rank {i}") for i in others if seen[i] != b"done"}
            except RuntimeError:
                found = {i: seen[i] for i in others if i == 0}  # the store ended with rank 0
            for index, value in found.items():
                silent[index] = silent[index] + 1 if value == seen[index] else 0
                seen[index] = value
                if silent[index] >= _BEATS:
                    _end(names[index], self.patience)


def _common_store(rank: int, patience: timedelta) -> TCPStore:
    """Return a store on rank 0, with an entry for each rank."""
    host = os.environ.get("MASTER_ADDR", "localhost")
    store = TCPStore(host, 0, is_master=True, timeout=patience) if rank == 0 else None
    port = [store and store.port]
    broadcast_object_list(port)
    store = store or TCPStore(host, port[0], is_master=False, timeout=patience)
    store.set(f"rank {rank}", "0")
    return store


def _end(name: str, patience: float) -> None:
    text = (
        f"error: {name} has given no sign of life for {patience:g} s: it was killed, or its "
        "machine or the network failed. See its output. --resume continues from the last checkpoint"
    )
    os.write(2, f"{text}\n".encode())
    os._exit(1)


@contextlib.contextmanager
def dead_rank_named(runner: Runner) -> Iterator[None]:
    """After an error of the connection between ranks, let the watch name the dead one.

    Raises:
        RuntimeError: the error, if all others are alive.
    """
    try:
        yield
    except RuntimeError as error:
        watches = [hook for hook in runner.hooks if isinstance(hook, RankWatchHook)]
        if watches and any(part in str(error) for part in _CONNECTION):
            time.sleep(1.1 * watches[0].patience)  # this process ends meanwhile
        raise


_CONNECTION = ("Connection closed by peer", "Connection reset", "Broken pipe", "NCCL")
