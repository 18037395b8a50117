import os
import signal
import threading
import time

import pytest

from det_losses.engine import signals
from det_losses.engine.signals import StopHook, signals_as_interrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_and_its_handler_comes_back(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), signals_as_interrupt():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_in_another_thread_signals_are_left_alone():
    def enter():
        with signals_as_interrupt():
            entered.append(signal.getsignal(signal.SIGTERM))

    entered, before = [], signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_training_stops_after_the_step_with_a_signal(number):
    hook = StopHook()
    with hook.listening():
        hook.after_train_iter(None, 0)
        os.kill(os.getpid(), number)  # raises nothing here
        with pytest.raises(KeyboardInterrupt):
            hook.after_train_iter(None, 1)
        with pytest.raises(KeyboardInterrupt):
            hook.after_val_iter(None, 1)


def test_a_second_signal_stops_at_once():
    with pytest.raises(KeyboardInterrupt), StopHook().listening():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_long_step_is_interrupted(monkeypatch):
    monkeypatch.setattr(signals, "PATIENCE", 0.05)
    with pytest.raises(KeyboardInterrupt), StopHook().listening():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    time.sleep(0.1)  # the timer is off


def test_a_step_in_native_code_is_abandoned(monkeypatch, capfd):
    ended = threading.Event()
    monkeypatch.setattr(signals, "LIMIT", 0.05)
    monkeypatch.setattr(os, "_exit", lambda status: ended.set() if status == 130 else None)
    with StopHook("interrupted; resume").listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended.wait(5)
    assert capfd.readouterr().err == "interrupted; resume\n"


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_as_interrupt():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
