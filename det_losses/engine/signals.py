"""Clean termination on signals."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.hooks import Hook

# Seconds after a signal until the step is interrupted, or abandoned. On a busy machine, the workers
# and the interpreter take a second or two more to end; all processes are to have ended after 5.
PATIENCE, LIMIT = 1.5, 3.0


@contextlib.contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP (closed terminal), as on Ctrl-C.

    Only the main thread can handle signals; in another one, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt, signal.SIGTERM, signal.SIGHUP):
        yield


class StopHook(Hook):
    """End training after the current step on the first SIGINT, SIGTERM or SIGHUP.

    An exception raised in a signal handler can be lost, because Python ignores exceptions in
    destructors and fork callbacks, in which a loader with workers spends much time. And between two
    steps no checkpoint is being written. A second signal interrupts immediately. So does the end of
    the first ``PATIENCE`` seconds, for a long step or evaluation.

    Args:
        last_words: if given, the process ends ``LIMIT`` seconds after the signal with this text on
            stderr and status 130, also within a long call of native code, such as a backward pass.
            All files are written atomically, so this loses no more than the steps since the last
            checkpoint.
    """

    def __init__(self, last_words: str | None = None) -> None:
        self._requested = False
        self._last_words = last_words

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside the context."""

        def request_stop(number: int, frame: object) -> None:
            if self._requested:
                raise KeyboardInterrupt
            self._requested = True
            # repeatedly, because an exception can be lost
            signal.setitimer(signal.ITIMER_REAL, PATIENCE, 0.5)
            if self._last_words is not None:
                end.start()

        def interrupt(number: int, frame: object) -> None:
            raise KeyboardInterrupt

        end = threading.Timer(LIMIT, _end_process, [self._last_words])
        end.daemon = True
        signals = _handled(request_stop, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        with _handled(interrupt, signal.SIGALRM), signals:
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                end.cancel()

    def _after_iter(self, *args: Any, **kwargs: Any) -> None:
        """Stop training or evaluation.

        Raises:
            KeyboardInterrupt: a signal was received.
        """
        if self._requested:
            raise KeyboardInterrupt


def _end_process(last_words: str) -> None:
    os.write(2, f"{last_words}\n".encode())
    os._exit(130)


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
