"""Where runs train: an executor runs the command of each; the local one in a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from det_losses.comparison.fork_server import Fork, ForkServer
from det_losses.engine.device import device_options
from det_losses.paths import python_path, safe_path

_GRACE = 4.0  # seconds that a terminated run gets to end its workers: stopping takes at most 5


INTERVAL = 0.3  # seconds between two looks at a running process, or at what a run waits for


def train_command(config: Path, work_dir: Path, start: Path | None = None) -> list[str]:
    """Return the command of a run: the ``train`` tool; ``start`` is the checkpoint of a fork."""
    tool = [sys.executable, "-m", "det_losses", "train"]
    # Absolute paths do not begin with a dash, as an option does.
    options = ["--work-dir", str(work_dir.absolute()), "--no-plan", *device_options()]
    resume = ["--resume", str(start.absolute())] if start else ["--resume"]
    return [*tool, str(config.absolute()), *options, *resume]


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
    """Runs each command in a process of its own on this machine.

    On Linux, the processes of this package's engine are forks of a server that has done its
    imports; the first one starts it. A command of another program, or with another environment than
    the server's, is started as usual, and so is one that the server fails to start.
    """

    def __init__(self) -> None:
        self._server: ForkServer | None = None
        self._lock = threading.Lock()

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
        arguments = _arguments_of_module(command)
        server = self._serving(_environment(command, env)) if arguments else None
        if server:
            with output.open("ab") as file:
                fork = server.fork(arguments, file, keep_open)
                if fork.started(tick, INTERVAL):
                    return _watch(fork, tick, INTERVAL)
        return run_process(command, output, tick, keep_open=keep_open, env=env)

    def close(self) -> None:
        """End the server."""
        if self._server:
            self._server.close()
            self._server = None

    def _serving(self, env: Mapping[str, str]) -> ForkServer | None:
        """Return a server with this environment; None if the present one has another."""
        if sys.platform != "linux":  # system libraries of macOS do not work in forks
            return None
        with self._lock:
            if self._server and not self._server.is_alive():
                self.close()
            if self._server is None:
                self._server = ForkServer(env)
            return self._server if self._server.env == env else None


def _arguments_of_module(command: Sequence[str]) -> Sequence[str]:
    """Return the module that a command runs and its arguments; none if it is not of the engine.

    >>> _arguments_of_module([sys.executable, "-m", "det_losses", "train", "x.py"])
    ['det_losses', 'train', 'x.py']
    >>> _arguments_of_module([sys.executable, "-m", "det_losses.adapters.ultralytics"])
    []
    """
    module = command[2] if list(command[:2]) == [sys.executable, "-m"] and command[2:] else ""
    ours = module == "det_losses" or module.startswith("det_losses.comparison.")
    return command[2:] if ours else []


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
    with output.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=() if keep_open is None else (keep_open,),
            env=_environment(command, env),
        )
        return _watch(process, tick, interval)


def _environment(command: Sequence[str], env: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment of a run, in which this package can be imported."""
    return {**os.environ, **(env or {}), "PYTHONPATH": python_path(), **safe_path_of(command)}


def safe_path_of(command: Sequence[str]) -> dict[str, str]:
    """Return :func:`~det_losses.paths.safe_path`, but nothing for another program.

    It would hide the modules beside a script of the user.
    """
    return safe_path() if _arguments_of_module(command) else {}


def _watch(process: subprocess.Popen | Fork, tick: Callable[[], None], interval: float) -> int:
    """Return the status of a process when it ends; terminate it if ``tick`` raises."""
    try:
        while True:
            try:
                return process.wait(timeout=interval)
            except subprocess.TimeoutExpired:
                tick()
    except BaseException:
        _stop(process)
        raise


def _stop(process: subprocess.Popen | Fork) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # including its workers
    process.wait()
