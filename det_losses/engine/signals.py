"""Signals that end a program cleanly."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.hooks import Hook


@contextlib.contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt for SIGTERM and SIGHUP (a closed terminal), as for Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt, signal.SIGTERM, signal.SIGHUP):
        yield


class StopHook(Hook):
    """Ends training after the current step at the first SIGINT, SIGTERM or SIGHUP.

    An exception that a signal handler raises can be lost: Python ignores exceptions in destructors
    and fork callbacks, where a loader with workers spends much time. Between two steps, no
    checkpoint is half written. A second signal interrupts at once.
    """

    def __init__(self) -> None:
        self._asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals."""

        def note(number: int, frame: object) -> None:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = True

        with _handled(note, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            yield

    def _after_iter(self, *args: Any, **kwargs: Any) -> None:
        """Stop, in training and in evaluation.

        Raises:
            KeyboardInterrupt: there was a signal.
        """
        if self._asked:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(handler: Callable[[int, object], None], *numbers: signal.Signals) -> Iterator[None]:
    # A signal that the parent process ignores (nohup) stays ignored.
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, former in zip(numbers, before, strict=True):
            signal.signal(number, former)
