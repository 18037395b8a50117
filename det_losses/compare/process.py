"""A run in a process of its own, which ends with the comparison that started it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from det_losses.paths import import_root

_GRACE = 20.0  # seconds that a stopped run gets to end its workers


def run_process(
    command: Sequence[str],
    output: Path,
    tick: Callable[[], None],
    *,
    keep_open: int | None = None,
    env: Mapping[str, str] | None = None,
    interval: float = 0.3,
) -> int:
    """Run a command with its output appended to a file.

    It has a session of its own, so that Ctrl-C on the terminal reaches this process alone, which
    then stops the other one in order.

    Args:
        command: program and arguments.
        output: the file that gets stdout and stderr.
        tick: called every ``interval`` seconds.
        keep_open: a file descriptor that the process inherits (the lock of the directory).
        env: environment variables to set beside those of this process.
        interval: seconds.

    Returns:
        The exit status; negative is minus a signal.
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


def train_command(config: Path, work_dir: Path) -> list[str]:
    """Return the command of a run; it is the user's own ``train``."""
    tool = [sys.executable, "-m", "det_losses", "train"]
    return [*tool, str(config), "--work-dir", str(work_dir), "--resume"]


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever is left of it, its workers too
    process.wait()
