"""A process that has done the imports of a run, and starts runs as forks of itself.

    python -m det_losses.comparison.fork_server SOCKET

The imports take seconds of CPU time, a fork milliseconds. A fork has its own session and output,
and leaves :func:`serve` to run a module of this package as ``python -m`` does. It has the
environment, the working directory and the sys.path of the server.

A process can be forked safely if it has one thread, has run no parallel operation of torch (the
threads of OpenMP do not survive a fork) and has not initialised CUDA. So the server only imports.

Protocol: a request is one message on the socket, the module and its arguments as JSON, with file
descriptors: a socket for the answers, the output, and others that the run keeps open. The fork
answers with its process id, and the server with its status when it has ended. The server ends when
the other end of its socket is closed; the forks go on.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

LONGEST = 1 << 16  # bytes of a message
_DESCRIPTORS = 8  # of a request, at most
_INTERVAL = 0.05  # seconds between two looks at the forks
# mmengine asks for GPUs when it is imported. Without this setting, torch asks the runtime of CUDA,
# which then cannot be used in forks.
_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
# Besides the locations of the registries. mmengine imports matplotlib for each Runner.
_IMPORTED = (
    "det_losses.engine.experiment",
    "det_losses.engine.fitted_anchors",
    "det_losses.engine.outline",
    "det_losses.engine.run",
    "hotcoco",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
)


class ForkServer:
    """A server, as the process that starts it sees it.

    Args:
        env: environment of the server and its forks.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
                env=self.env,
            )

    def is_alive(self) -> bool:
        """Return whether the server is running."""
        return self._process.poll() is None

    def fork(self, arguments: Sequence[str], output: BinaryIO, keep_open: int | None) -> "Fork":
        """Ask for a fork.

        Args:
            arguments: the module that it runs, and its arguments.
            output: the file for stdout and stderr.
            keep_open: a file descriptor for the fork to inherit.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptors = [theirs.fileno(), output.fileno()]
        descriptors += [] if keep_open is None else [keep_open]
        with theirs, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._requests, [json.dumps(arguments).encode()], descriptors)
        return Fork(ours)

    def close(self) -> None:
        """End the server; forks that are running go on."""
        self._requests.close()
        self._process.wait()


class Fork:
    """A fork of the server, with the interface of :class:`subprocess.Popen` as far as needed.

    Attributes:
        pid: its process id, once it has started.
    """

    def __init__(self, answers: socket.socket) -> None:
        self.pid = 0
        self._answers = answers
        self._status: int | None = None

    def started(self, tick: Callable[[], None], interval: float) -> bool:
        """Wait for the start, which is after the imports of the server; return False if it failed.

        Args:
            tick: called every ``interval`` seconds. If it raises, the fork is not started.
            interval: seconds between two calls of ``tick``.
        """
        try:
            while not select.select([self._answers], [], [], interval)[0]:
                tick()
            self.pid = self._receive().get("pid", 0)
        finally:
            if not self.pid:
                self._answers.close()
        return self.pid > 0

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status; if the fork was killed, the negative number of the signal.

        It is -SIGKILL if the server was killed, because nobody else knows the status.

        Raises:
            subprocess.TimeoutExpired: it is still running after ``timeout`` seconds.
        """
        if self._status is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("fork", timeout)
            with self._answers:
                self._status = self._receive().get("status", -signal.SIGKILL)
        return self._status

    def terminate(self) -> None:
        """Send SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def _receive(self) -> dict[str, int]:
        """Return an answer; an empty one if the server and the fork have ended without it."""
        try:
            return json.loads(self._answers.recv(LONGEST) or b"{}")
        except ConnectionResetError:
            return {}


def import_all() -> None:
    """Import what a run imports, some of it when it is first used."""
    given = _CHECK in os.environ
    os.environ.setdefault(_CHECK, "1")
    for name in _IMPORTED:
        importlib.import_module(name)
    if not given:
        del os.environ[_CHECK]  # the runs ask CUDA itself
    from PIL import Image

    from det_losses import registry

    Image.init()  # imports its file formats
    for each in vars(registry).values():
        if isinstance(each, registry.Registry):
            each.import_from_location()


def serve(control: socket.socket) -> list[str] | None:
    """Start a fork for each request.

    Returns:
        In a fork: the module to run, and its arguments. In the server, at its end: None.
    """
    forks: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([control], [], [], _INTERVAL if forks else None)
        if ready:
            message, descriptors, _, _ = socket.recv_fds(control, LONGEST, _DESCRIPTORS)
            if not message:
                return None
            answers = socket.socket(fileno=descriptors[0])
            pid = os.fork()
            if pid == 0:
                for other in (control, *forks.values()):
                    other.close()
                arguments = json.loads(message)
                _become_run(arguments, answers, output=descriptors[1])
                return arguments
            forks[pid] = answers
            for descriptor in descriptors[1:]:
                os.close(descriptor)
        _collect(forks)


def _collect(forks: dict[int, socket.socket]) -> None:
    """Answer with the status of each fork that has ended."""
    for pid in list(forks):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with forks.pop(pid) as answers:
                _answer(answers, status=os.waitstatus_to_exitcode(status))


def _answer(answers: socket.socket, **message: int) -> bool:
    """Send an answer; return whether someone still waits for it."""
    try:
        answers.send(json.dumps(message).encode())
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _become_run(arguments: list[str], answers: socket.socket, output: int) -> None:
    """Make a fork the process that the command of its run would start."""
    import numpy as np
    import torch

    from det_losses.engine.device import uses_cuda

    os.setsid()
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    if not _answer(answers, pid=os.getpid()):
        os._exit(1)  # the comparison has ended in the meantime
    answers.detach()  # not closed: if the server is killed, its end is that of the run
    if torch.cuda._is_in_bad_fork() and uses_cuda():  # an import has initialised CUDA
        os.execv(sys.executable, [sys.executable, "-m", *arguments])
    np.random.seed()  # all forks have the state that the import made


def main() -> None:
    """Serve; in a fork, run its module."""
    control = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    gc.collect()
    gc.freeze()  # otherwise each collection in a fork copies the memory of the imports
    arguments = serve(control)
    if arguments is not None:
        module, *sys.argv[1:] = arguments
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
