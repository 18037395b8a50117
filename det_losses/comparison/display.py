"""The progress of a run, and the time that is left."""

import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from det_losses.engine.progress import PROGRESS_FILE, ap_text
from det_losses.errors import printable
from det_losses.files import read_whole_json
from det_losses.report.formats import duration

_LONGEST = 100  # characters of a line of a log
_FEW_EPOCHS = 30  # with more epochs, a file gets a line per tenth of a run, not per epoch


class RunDisplay:
    """Progress of one run: a line rewritten in place on a terminal, a line per epoch in a file.

    Args:
        title: start of each line.
        work_dir: directory of the run, which writes its progress there.
        finished: durations of finished runs that were not resumed, in seconds per whole training.
        following: number of runs that this job still has to train after this one.
        stream: output stream; default stdout.
        live: whether the line may be rewritten on a terminal; False if several runs write to it.
        log: output of a program that writes no progress: its last line is shown instead, in a file
            once a minute.
    """

    def __init__(
        self,
        title: str,
        work_dir: Path,
        finished: Sequence[float],
        following: int,
        stream: TextIO | None = None,
        live: bool = True,
        log: Path | None = None,
    ) -> None:
        self._stream = stream or sys.stdout
        self._live = live and self._stream.isatty()
        self._title = title
        self._file, self._log = work_dir / PROGRESS_FILE, log
        self._file.unlink(missing_ok=True)
        self._finished, self._following = finished, following
        self._start = time.perf_counter()
        self._first: dict[str, Any] | None = None
        self._shown: Any = None
        self._width = 0

    @property
    def elapsed(self) -> float:
        """Seconds since construction, which is just before the process starts."""
        return time.perf_counter() - self._start

    def say(self, text: str) -> None:
        """Print a permanent line."""
        print_line(self._stream, f"{self._title}  {text}")

    def update(self) -> None:
        """Show the current progress if it has changed."""
        state = read_whole_json(self._file)
        if state is None:
            self._update_from_log()
            return
        self._first = self._first or state
        tenth = 10 * state["step"] // max(1, state["steps"])
        few = 1 < state["epochs"] <= _FEW_EPOCHS
        news = state["step"] if self._live else (state["epoch"] if few else tenth)
        if (news, state["AP"]) == self._shown:
            return
        self._shown = news, state["AP"]
        self._show(self._line(state))

    def _update_from_log(self) -> None:
        passed = int(self.elapsed if self._live else self.elapsed // 60)
        if self._log is None or not passed or passed == self._shown:
            return
        self._shown = passed
        current, _ = remaining(self._finished, self._following, self.elapsed, 0.0)
        parts = [f"{self._title}  running for {duration(self.elapsed)}"]
        if current:
            parts.append(f"about {duration(current)} left")
        self._show("  ".join([*parts, _last_line(self._log)]).rstrip())

    def _show(self, text: str) -> None:
        if self._live:
            text = text[: shutil.get_terminal_size().columns - 1]  # \r cannot undo a wrapped line
            self._width = max(self._width, len(text))
            print(f"\r{text:<{self._width}}", end="", file=self._stream, flush=True)
        else:
            print_line(self._stream, text)

    def close(self, text: str) -> None:
        """Replace the progress line by a permanent one."""
        start = "\r" if self._live else ""
        print_line(self._stream, f"{start}{f'{self._title}  {text}':<{self._width}}")

    def _line(self, state: dict[str, Any]) -> str:
        steps = max(1, state["steps"])
        done = (state["step"] - self._first["step"]) / steps
        fraction = state["step"] / steps
        # A resumed run trains only the rest: extrapolate from the steps since its start.
        pace = self.elapsed / done * fraction if done > 0 else self.elapsed
        current, total = remaining(
            self._finished, self._following, pace, fraction if done > 0 or self._finished else 0.0
        )
        parts = [f"{self._title}  {state['step']}/{state['steps']} steps"]
        if state["loss"] is not None:
            parts.append(f"loss {state['loss']:.3f}")
        if state["AP"] is not None:
            parts.append(ap_text(state))
        if current is not None:
            parts.append(f"{duration(current)} left")
            if self._following:
                parts.append(f"{duration(total)} for all runs")
        return "  ".join(parts)


def _last_line(log: Path) -> str:
    """Return the last line of a log that is not empty, cut if it is long; an empty text if none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    return printable(lines[-1])[:_LONGEST] if lines else ""


def print_line(stream: TextIO, text: str) -> None:
    """Print in one write: `print` writes the newline separately, and runs print in parallel."""
    start = "\r" if text.startswith("\r") else ""  # to overwrite the progress line
    stream.write(f"{start}{printable(text.removeprefix(start))}\n")
    stream.flush()


def remaining(
    finished: Sequence[float], following: int, elapsed: float, fraction: float
) -> tuple[float | None, float | None]:
    """Estimate the remaining seconds of the current run and of all runs.

    Args:
        finished: durations of finished runs.
        following: number of runs after the current one.
        elapsed: seconds since the start of the current run.
        fraction: fraction of its steps that it did in that time.

    Returns:
        Both, or None if nothing is known yet.
    """
    mean = sum(finished) / len(finished) if finished else None
    if fraction > 0:
        mean_now = elapsed / fraction
        mean = mean if mean is not None else mean_now
    if mean is None:
        return None, None
    current = max(0.0, mean * (1 - fraction) if fraction else mean - elapsed)
    return current, current + following * mean
