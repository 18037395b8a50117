"""The report of a running comparison, rewritten after each run by another process."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from det_losses.files import REPORT_FILE, write_text
from det_losses.paths import python_path, safe_path
from det_losses.report import without_refresh

_WORTH = 60.0  # with fewer seconds left, the final report comes soon enough
_PAUSE = 9.0  # pause after a report, in times that it took: reports take a tenth of the time
_LOWEST_PRIORITY = 19


class InterimReport:
    """Rewrites the report of a comparison while its runs train.

    The ``report`` tool writes it, in a process of its own: an error there cannot stop the
    comparison, and at the lowest priority, on one thread and without a GPU it takes hardly any time
    from the runs. Reports on much data take long; there are pauses between them in proportion.

    Args:
        root: the directory of the comparison.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: subprocess.Popen | None = None
        self._output = tempfile.TemporaryFile()
        self._begin = self._earliest = 0.0  # on the monotonic clock
        self._wanted = self._failed = False
        self._lock = threading.Lock()  # runs in parallel share this object

    def __enter__(self) -> "InterimReport":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._output.close()
        file = self._root / REPORT_FILE
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = file.read_text(encoding="utf-8")
            if (settled := without_refresh(text)) != text:  # no final report was written
                write_text(file, settled)

    def request(self, seconds_left: float) -> None:
        """Ask for a new report, after a run has finished."""
        with self._lock:
            self._wanted = self._wanted or seconds_left >= _WORTH
        self.tick()

    def tick(self) -> None:
        """Start the report that was asked for, unless one is being written or it is too early."""
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._collect()
            if self._wanted and self._process is None and time.monotonic() >= self._earliest:
                self._wanted = False
                self._start()

    def stop(self) -> None:
        """Stop a report that is being written, because the runs have ended; remove its parts."""
        with self._lock:
            self._wanted = False
            if self._process is None:
                return
            self._process.kill()
            self._process.wait()
            for part in self._root.rglob(f"*.{self._process.pid}.part"):
                part.unlink(missing_ok=True)
            self._process = None

    def _start(self) -> None:
        alone = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": python_path()}
        self._output.seek(0)
        self._output.truncate()
        self._begin = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "det_losses", "report", str(self._root.absolute())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._output,
                start_new_session=True,
                env={**os.environ, **alone, **safe_path()},
            )
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _LOWEST_PRIORITY)
        except OSError as error:
            self._say_failed(str(error))

    def _collect(self) -> None:
        """End a report that has been written, or could not be."""
        now = time.monotonic()
        self._earliest = now + _PAUSE * (now - self._begin)
        if self._process.returncode:
            self._output.seek(0)
            lines = self._output.read().decode("utf-8", "replace").strip().splitlines()
            self._say_failed(lines[-1] if lines else f"exit status {self._process.returncode}")
        self._process = None

    def _say_failed(self, reason: str) -> None:
        if not self._failed:
            print(f"the report is written at the end only: {reason}", flush=True)
        self._failed = True
