"""Runs of a comparison on a Ray cluster: ``--executor ray``."""

import contextlib
import ctypes
import fcntl
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from det_losses.comparison.process import INTERVAL, safe_path_of
from det_losses.errors import InputError, counted
from det_losses.paths import python_path

RETRIES = 3  # of a run whose machine was lost
_GRACE = 10.0  # seconds that a cancelled run gets to end
_LOCKED = 60.0  # seconds until the training on a lost machine has ended and released its directory
_NOT_SENT = (".lock", ".marker")
_SENT = (".py", ".pth", ".json")  # files elsewhere, if a command names them


@dataclass(frozen=True)
class Job:
    """A command for a machine of the cluster.

    Attributes:
        command: program and arguments, with paths of the machine that runs the comparison.
        work_dir: directory of the run.
        output: the file for stdout and stderr, in ``work_dir``.
        marker: a file in ``work_dir`` with a unique name: a machine that has it shares the file
            system.
        env: environment variables in addition to those of the cluster's machine.
        python: the interpreter in ``command``, for which the machine uses its own.
        cwd: the directory in which the command runs, if the machine has it.
        files: archive of ``work_dir`` and of the files elsewhere that the command names, for a
            machine that does not share the file system.
    """

    command: tuple[str, ...]
    work_dir: Path
    output: Path
    marker: Path
    env: Mapping[str, str]
    python: str
    cwd: Path
    files: bytes | None = None


class RayExecutor:
    """Runs commands on a Ray cluster, each with the given resources.

    Ray repeats a run whose machine was lost, up to three times. Where the machines share the
    comparison's directory, the run resumes from its last checkpoint; else it starts again, and its
    files are copied back when it ends.

    Args:
        address: of the cluster, ``"auto"`` for the one that this machine belongs to; None: that of
            RAY_ADDRESS, or else the one of this machine, which is started if there is none.
        cpus: cores of a run.
        gpus: GPUs of a run, such as 0.25 for four runs on a GPU; None: 1 if the cluster has any.

    Attributes:
        places: number of runs that the cluster has room for.

    Raises:
        InputError: Ray is not installed, there is no such cluster, or no machine has the resources.
    """

    def __init__(self, address: str | None, cpus: float, gpus: float | None) -> None:
        if find_spec("ray") is None:
            raise InputError("--executor ray needs the package ray: pip install 'det-losses[ray]'")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        _connect(ray, address)
        nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU") for node in nodes) else 0.0
        self._ray, self._cpus = ray, cpus
        self.places = sum(_places(node, cpus, gpus) for node in nodes)
        if not self.places:
            ray.shutdown()
            found = ", ".join(f"{n.get('CPU', 0):g} and {n.get('GPU', 0):g}" for n in nodes)
            raise InputError(
                f"no machine of the Ray cluster has --cpus-per-run {cpus:g} and --gpus-per-run "
                f"{gpus:g}; its machines have (CPUs and GPUs) {found}"
            )
        options = dict(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)
        self._train = ray.remote(**options)(train_on_this_machine)
        self._shared = True  # the file system, until a machine does not see a marker
        print(
            f"Ray cluster: {counted(len(nodes), 'machine')}, room for "
            f"{counted(self.places, 'run')} at a time",
            flush=True,
        )

    def run(
        self,
        command: Sequence[str],
        output: Path,
        tick: Callable[[], None],
        *,
        keep_open: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Run a command; see :class:`~det_losses.comparison.process.Executor`.

        A run that was lost with its machine too often has the status of SIGKILL.
        """
        output = output.absolute()
        work_dir = output.parent
        marker = work_dir / f"{uuid.uuid4().hex}.marker"
        marker.touch()
        try:
            own = {**(env or {}), "OMP_NUM_THREADS": str(max(1, int(self._cpus)))}
            own |= safe_path_of(command)
            command = _absolute(command)
            cwd = Path.cwd()
            job = Job(tuple(command), work_dir, output, marker, own, sys.executable, cwd)
            status, found = None, None
            if self._shared:
                status, found = self._watch(self._train.remote(job), tick, output)
            if status is None:
                self._shared = False
                job = replace(job, files=_packed(work_dir, command))
                status, found = self._watch(self._train.remote(job), tick, output)
            if found is not None:
                _unpack(found, work_dir)
            return status
        finally:
            marker.unlink(missing_ok=True)

    def _watch(
        self, task: Any, tick: Callable[[], None], output: Path
    ) -> tuple[int | None, bytes | None]:
        """Wait for a task; cancel it if ``tick`` raises."""
        try:
            while not self._ray.wait([task], timeout=INTERVAL)[0]:
                tick()
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError:
            raise  # also as the type that the task raised, such as OSError
        except self._ray.exceptions.RayError as error:
            with output.open("a") as log:
                log.write(f"Ray gave up after {RETRIES} retries: {error}\n")
            return -signal.SIGKILL, None
        except BaseException:
            self._ray.cancel(task)  # KeyboardInterrupt in train_on_this_machine
            if not self._ray.wait([task], timeout=_GRACE)[0]:
                self._ray.cancel(task, force=True)
            raise

    def close(self) -> None:
        """Disconnect from the cluster; a local one that was started for this ends."""
        self._ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    """Connect to the cluster; the handler of SIGTERM stays, which Ray replaces."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: cannot connect to Ray: {error}") from error
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


def _places(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Return how many runs a machine has room for."""
    limits = [node.get(name, 0) / each for name, each in (("CPU", cpus), ("GPU", gpus)) if each]
    return int(min(limits))


def train_on_this_machine(job: Job) -> tuple[int | None, bytes | None]:
    """Run a job on a machine of the cluster.

    Returns:
        The exit status, None if the job has no files and they are not shared; and the archive of
        the run's directory, None if it is shared.
    """
    if job.marker.exists():
        _wait_until_free(job.work_dir)
        return _run(job.command, job, job.output), None
    if job.files is None:
        return None, None
    with tempfile.TemporaryDirectory(prefix="det_losses_run.") as folder:
        there = Path(folder, "run")
        there.mkdir()
        elsewhere = _unpack(job.files, there)
        moved = {str(job.work_dir): str(there), **elsewhere}
        command = [_moved(each, moved) for each in job.command]
        status = _run(command, job, there / job.output.name)
        return status, _packed(there, ())


def _run(command: Sequence[str], job: Job, output: Path) -> int:
    """Run a command in a process that ends with this one."""
    command = [sys.executable if each == job.python else each for each in command]
    with output.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=job.cwd if job.cwd.is_dir() else None,
            env={**os.environ, **job.env, "PYTHONPATH": python_path()},
            preexec_fn=_end_with_parent,
        )
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_GRACE / 2)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def _end_with_parent() -> None:
    """Let Linux kill this process when its parent ends, such as a worker of a lost machine."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _wait_until_free(work_dir: Path) -> None:
    """Wait until the training that a lost machine left has released the directory."""
    end = time.monotonic() + _LOCKED
    with (work_dir / ".lock").open("a") as file:
        while time.monotonic() < end:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except (BlockingIOError, PermissionError):
                time.sleep(0.5)


def _absolute(command: Sequence[str]) -> list[str]:
    """Return a command in which relative paths of existing files and directories are absolute.

    A name without a separator is a path only if it has the ending of a file that is sent.
    """
    return [
        str(Path(each).absolute())
        if (os.sep in each or each.endswith(_SENT)) and Path(each).exists()
        else each
        for each in command
    ]


def _packed(work_dir: Path, command: Sequence[str]) -> bytes:
    """Return an archive of a directory, and of the files elsewhere that a command names."""
    buffer = io.BytesIO()
    others = [Path(each) for each in command if each.endswith(_SENT)]
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in sorted(work_dir.rglob("*")):
            if file.is_file() and not file.name.endswith(_NOT_SENT):
                archive.add(file, f"run/{file.relative_to(work_dir)}")
        for file in others:
            if file.is_file() and not file.is_relative_to(work_dir):
                archive.add(file, f"else/{file.absolute()}")
    return buffer.getvalue()


def _unpack(files: bytes, work_dir: Path) -> dict[str, str]:
    """Write the files of an archive; return where those of other directories are.

    A file is renamed into its place, so that one with its own name is always complete.
    """
    elsewhere = {}
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        for member in archive.getmembers():
            kind, _, name = member.name.partition("/")
            target = (
                work_dir / name if kind == "run" else work_dir.parent / "else" / name.lstrip("/")
            )
            if kind == "else":
                elsewhere["/" + name.lstrip("/")] = str(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.part")
            with archive.extractfile(member) as source, part.open("wb") as file:
                shutil.copyfileobj(source, file)
            part.replace(target)
    return elsewhere


def _moved(text: str, moved: Mapping[str, str]) -> str:
    """Return an argument with the path of a file or directory on this machine."""
    for before, after in moved.items():
        if text == before or text.startswith(f"{before}{os.sep}"):
            return after + text[len(before) :]
    return text
