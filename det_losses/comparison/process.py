"""Where runs train: an executor runs the command of each; the local one in a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from det_losses.engine.device import device_options
from det_losses.paths import import_root

_GRACE = 4.0  # seconds that a terminated run gets to end its workers: stopping takes at most 5


INTERVAL = 0.3  # seconds between two looks at a running process, or at what a run waits for


def train_command(config: Path, work_dir: Path, start: Path | None = None) -> list[str]:
    """Return the command of a run: the ``train`` tool; ``start`` is the checkpoint of a fork."""
    tool = [sys.executable, "-m", "det_losses", "train"]
    options = ["--work-dir", str(work_dir), "--no-plan", *device_options()]
    resume = ["--resume", str(start)] if start else ["--resume"]
    return [*tool, str(config), *options, *resume]


class Executor(Protocol):
    """Runs the commands of a comparison's runs, several at a time from different threads."""

    def run(
        self,
        command: Sequence[str],
        output: Path,
        tick: Callable[[], None],
        *,
        keep_open: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Run a command, append its output to a file and return its exit status.

        As :func:`run_process`: an exception that ``tick`` raises terminates the command and
        propagates.
        """

    def close(self) -> None:
        """End everything that the executor started. No command is running any more."""


class LocalExecutor:
    """Runs each command in a process of its own on this machine."""

    def run(
        self,
        command: Sequence[str],
        output: Path,
        tick: Callable[[], None],
        *,
        keep_open: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Run a command; see :func:`run_process`."""
        return run_process(command, output, tick, keep_open=keep_open, env=env)

    def close(self) -> None:
        """Nothing is left to end."""


def run_process(
    command: Sequence[str],
    output: Path,
    tick: Callable[[], None],
    *,
    keep_open: int | None = None,
    env: Mapping[str, str] | None = None,
    interval: float = INTERVAL,
) -> int:
    """Run a command and append its output to a file.

    The process gets its own session, so that Ctrl-C on the terminal reaches only this process,
    which then terminates the other one cleanly.

    Args:
        command: program and arguments.
        output: the file for stdout and stderr.
        tick: called every ``interval`` seconds.
        keep_open: a file descriptor for the process to inherit (the lock of the directory).
        env: environment variables in addition to those of this process.
        interval: seconds between two calls of ``tick``.

    Returns:
        The exit status; if the process was killed, the negative number of the signal.
    """
    path = os.pathsep.join(filter(None, [str(import_root()), os.environ.get("PYTHONPATH")]))
    with output.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=() if keep_open is None else (keep_open,),
            env={**os.environ, **(env or {}), "PYTHONPATH": path},
        )
        try:
            while True:
                try:
                    return process.wait(timeout=interval)
                except subprocess.TimeoutExpired:
                    tick()
        except BaseException:
            _stop(process)
            raise


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # including its workers
    process.wait()
