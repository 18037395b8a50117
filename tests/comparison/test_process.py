"""The process of a run."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from det_losses.comparison import process, trainer
from det_losses.comparison.process import run_process, train_command
from det_losses.comparison.runner import PlanRunner

TIDY = """
import pathlib, signal, sys, time

def tidy(number, frame):
    pathlib.Path("tidied").touch()
    sys.exit()

signal.signal(signal.SIGTERM, tidy)
print("begun", flush=True)
time.sleep(60)
"""


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_no_path_of_a_run_is_taken_for_an_option(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "device_options", lambda: [])
    command = train_command(Path("-w/config.py"), Path("-w/run"), Path("-w/start.pth"))
    folder = tmp_path / "-w"
    assert command[4:] == [
        *(str(folder / "config.py"), "--work-dir", str(folder / "run")),
        *("--no-plan", "--resume", str(folder / "start.pth")),
    ]


class TestRunProcess:
    def start(self, code, folder, tick=lambda: None):
        return run_process([sys.executable, "-c", code], folder / "log", tick, interval=0.02)

    def interrupt_once_begun(self, log):
        def tick():
            if log.is_file() and log.read_text().strip():
                raise KeyboardInterrupt

        return tick

    def test_output_goes_to_the_file_and_the_status_comes_back(self, tmp_path):
        assert self.start("print('out'); raise SystemExit(3)", tmp_path) == 3
        assert self.start("import sys; print('err', file=sys.stderr)", tmp_path) == 0
        # Appended, as the output of a resumed run is.
        assert (tmp_path / "log").read_text() == "out\nerr\n"

    def test_a_killed_run_is_told_as_that(self, cfg, plan, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(
            trainer, "train_command", lambda *paths: ["sh", "-c", "echo begun; kill -KILL $$"]
        )
        rows = PlanRunner(cfg, plan, tmp_path, 0, {"command": "compare x"}).execute()
        assert rows[0]["error"].splitlines()[0] == (
            "killed by SIGKILL (out of memory?); last lines of the log:"
        )
        assert "FAILED (killed by SIGKILL (out of memory?)), log:" in capsys.readouterr().out

    def test_stopping_takes_at_most_5_seconds(self):
        assert process._GRACE + 0.3 < 5  # the time between two calls of tick

    def test_the_status_of_a_killed_run_is_the_negative_signal(self, tmp_path):
        assert self.start("import os; os.kill(os.getpid(), 9)", tmp_path) == -9

    def test_the_package_is_importable_in_a_run_from_anywhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code = "from importlib.util import find_spec; print(find_spec('det_losses').origin)"
        assert self.start(code, tmp_path) == 0
        assert (
            Path((tmp_path / "log").read_text().strip()).parent == Path(process.__file__).parents[1]
        )

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no PYTHONSAFEPATH")
    @pytest.mark.parametrize(("first", "status"), [("", 3), ("/bin", 0)])
    def test_a_run_imports_what_this_process_does(self, first, status, tmp_path, monkeypatch):
        """A console script does not search the current folder, so its runs must not either."""
        (tmp_path / "argparse.py").write_text("raise SystemExit(3)")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [first, *(each for each in sys.path if each)])
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        command = [sys.executable, "-m", "det_losses", "--version"]
        assert run_process(command, tmp_path / "log", lambda: None) == status

    def test_a_script_of_the_user_finds_the_modules_beside_it(self, tmp_path, monkeypatch):
        (tmp_path / "helper_of_mine.py").touch()
        (tmp_path / "train.py").write_text("import helper_of_mine")
        monkeypatch.setattr(sys, "path", ["/bin", *sys.path])
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        command = [sys.executable, str(tmp_path / "train.py")]
        assert run_process(command, tmp_path / "log", lambda: None) == 0

    def test_an_interrupt_terminates_the_run_cleanly(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            self.start(TIDY, tmp_path, self.interrupt_once_begun(tmp_path / "log"))
        assert (tmp_path / "tidied").is_file()

    def test_a_run_that_ignores_signals_is_killed_with_its_children(self, tmp_path, monkeypatch):
        monkeypatch.setattr(process, "_GRACE", 0.1)
        with pytest.raises(KeyboardInterrupt):
            self.start(STUBBORN, tmp_path, self.interrupt_once_begun(tmp_path / "log"))
        child = int((tmp_path / "log").read_text())
        deadline = time.time() + 5
        while _alive(child) and time.time() < deadline:
            time.sleep(0.02)
        assert not _alive(child)

    def test_a_run_does_not_get_the_terminals_interrupt(self, tmp_path):
        # It is the leader of its own session.
        self.start("import os; print(os.getsid(0) == os.getpid())", tmp_path)
        assert (tmp_path / "log").read_text() == "True\n"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # an orphan stays as a zombie until init collects it
        return file.read().rpartition(")")[2].split()[0] != "Z"
