import os
import signal
import subprocess
import sys

import pytest

from det_losses.compare.guard import StopHook, locked, signals_as_interrupt


def test_a_second_comparison_in_the_same_directory_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match="in use by another comparison"):
        with locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_a_run_left_behind_keeps_the_lock(tmp_path):
    with locked(tmp_path) as lock:
        run = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,)
        )
    with pytest.raises(ValueError, match="or by a run that a killed one left behind"):
        with locked(tmp_path):
            pass
    run.communicate(b"\n", timeout=10)
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_and_its_handler_comes_back(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), signals_as_interrupt():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_training_stops_after_the_step_in_which_a_signal_comes(number):
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


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_as_interrupt():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
