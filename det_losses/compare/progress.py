"""What a terminal shows of a comparison: which run, how far, how long still."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from det_losses.engine.progress import PROGRESS_FILE
from det_losses.files import read_json
from det_losses.report.formats import duration


def remaining(
    whole: list[float], left: int, elapsed: float, fraction: float
) -> tuple[float | None, float | None]:
    """Estimate the seconds left for the current run and for all.

    Args:
        whole: durations of finished runs.
        left: how many runs come after the current one.
        elapsed: seconds of the current run.
        fraction: what part of a run's steps it did in that time.

    Returns:
        Both, or None where nothing is known yet.
    """
    mean = sum(whole) / len(whole) if whole else None
    if fraction > 0:
        mean_now = elapsed / fraction
        mean = mean if mean is not None else mean_now
    if mean is None:
        return None, None
    current = max(0.0, mean * (1 - fraction) if fraction else mean - elapsed)
    return current, current + left * mean


_FEW_EPOCHS = 30  # a file gets a line for each epoch up to here, else one each tenth


class RunDisplay:
    """The lines of one run: rewritten in place on a terminal, one an epoch in a file.

    Args:
        title: what each line begins with.
        work_dir: where the run tells its progress.
        finished: durations of the comparison's finished runs, seconds.
        left: how many runs come after this one, where it goes.
        stream: where to; default stdout.
        live: whether a terminal's line may be rewritten; not where several runs write to it.
    """

    def __init__(
        self,
        title: str,
        work_dir: Path,
        finished: list[float],
        left: int,
        stream: TextIO | None = None,
        live: bool = True,
    ) -> None:
        self.stream = stream or sys.stdout
        self._live = live and self.stream.isatty()
        self.title = title
        self._file = work_dir / PROGRESS_FILE
        self._file.unlink(missing_ok=True)
        self._finished, self._left = finished, left
        self._start = time.perf_counter()
        self._first: dict[str, Any] | None = None
        self._shown: Any = None
        self._width = 0

    def start(self) -> None:
        """Start the clock: the run's process begins."""
        self._start = time.perf_counter()

    def __call__(self) -> None:
        """Show what is new."""
        state = read_json(self._file)
        if state is None:
            return
        if self._first is None:
            self._first = state
        live = self._live
        tenth = 10 * state["step"] // max(1, state["steps"])
        few = 1 < state["epochs"] <= _FEW_EPOCHS
        news = state["step"] if live else (state["epoch"] if few else tenth)
        if (news, state["AP"]) == self._shown:
            return
        self._shown = news, state["AP"]
        text = self._line(state)
        if live:
            text = text[: shutil.get_terminal_size().columns - 1]  # a wrapped line would stay
            self._width = max(self._width, len(text))
            print(f"\r{text:<{self._width}}", end="", file=self.stream, flush=True)
        else:
            print(text, file=self.stream, flush=True)

    def close(self, text: str) -> None:
        """Replace the line by the run's last one."""
        start = "\r" if self._live else ""
        print(f"{start}{f'{self.title}  {text}':<{self._width}}", file=self.stream, flush=True)

    @property
    def elapsed(self) -> float:
        """Seconds since the run's process was started."""
        return time.perf_counter() - self._start

    def _line(self, state: dict[str, Any]) -> str:
        steps = max(1, state["steps"])
        done = (state["step"] - self._first["step"]) / steps
        fraction = state["step"] / steps
        # A resumed run does the rest only: its pace counts from where it began.
        pace = self.elapsed / done * fraction if done > 0 else self.elapsed
        current, total = remaining(self._finished, self._left, pace, fraction if done > 0 else 0.0)
        parts = [f"{self.title}  {state['step']}/{state['steps']} steps"]
        if state["loss"] is not None:
            parts.append(f"loss {state['loss']:.3f}")
        if state["AP"] is not None:
            parts.append(f"AP {state['AP']:.3f}")
        if current is not None:
            parts.append(f"{duration(current)} left")
            if self._left:
                parts.append(f"{duration(total)} for all")
        return "  ".join(parts)
