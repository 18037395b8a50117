import os
import signal
import sys
import time

import pytest

from det_losses.compare import process
from det_losses.compare.process import run_process

TIDY = """
import time, pathlib
from det_losses.engine.signals import signals_as_interrupt
try:
    with signals_as_interrupt():
        print("begun", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path("tidied").touch()
"""

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def start(code, folder, tick):
    return run_process([sys.executable, "-c", code], folder / "log", tick, interval=0.02)


def interrupt_once_begun(log):
    def tick():
        if log.is_file() and log.read_text().strip():
            raise KeyboardInterrupt

    return tick


def test_output_goes_to_the_file_and_the_status_comes_back(tmp_path):
    assert start("print('out'); raise SystemExit(3)", tmp_path, lambda: None) == 3
    assert start("import sys; print('err', file=sys.stderr)", tmp_path, lambda: None) == 0
    assert (tmp_path / "log").read_text() == "out\nerr\n"  # appended, as a resumed run's output is


def test_a_run_that_is_killed_says_by_which_signal(tmp_path):
    assert start("import os; os.kill(os.getpid(), 9)", tmp_path, lambda: None) == -9


def test_the_package_is_importable_in_a_run_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert start("import det_losses.paths", tmp_path, lambda: None) == 0


def test_an_interrupt_stops_the_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        start(TIDY, tmp_path, interrupt_once_begun(tmp_path / "log"))
    assert (tmp_path / "tidied").is_file()


def test_a_run_that_ignores_signals_is_killed_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_GRACE", 0.1)
    with pytest.raises(KeyboardInterrupt):
        start(STUBBORN, tmp_path, interrupt_once_begun(tmp_path / "log"))
    child = int((tmp_path / "log").read_text())
    deadline = time.time() + 5
    while _alive(child) and time.time() < deadline:
        time.sleep(0.02)
    assert not _alive(child)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # an orphan's corpse may wait for init to collect it
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_a_run_in_a_session_of_its_own_does_not_get_the_terminals_interrupt(tmp_path):
    code = "import os; print(os.getsid(0) == os.getpid())"
    start(code, tmp_path, lambda: None)
    assert (tmp_path / "log").read_text() == "True\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
