"""Clean termination on signals."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.hooks import Hook


@contextlib.contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP (closed terminal), as on Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt, signal.SIGTERM, signal.SIGHUP):
        yield


class StopHook(Hook):
    """End training after the current step on the first SIGINT, SIGTERM or SIGHUP.

    An exception raised in a signal handler can be lost, because Python ignores exceptions in
    destructors and fork callbacks, in which a loader with workers spends much time. And between two
    steps no checkpoint is being written. A second signal interrupts immediately.
    """

    def __init__(self) -> None:
        self._requested = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside the context."""

        def request_stop(number: int, frame: object) -> None:
            if self._requested:
                raise KeyboardInterrupt
            self._requested = True

        with _handled(request_stop, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            yield

    def _after_iter(self, *args: Any, **kwargs: Any) -> None:
        """Stop training or evaluation.

        Raises:
            KeyboardInterrupt: a signal was received.
        """
        if self._requested:
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
