import contextlib
import errno
import importlib
import io
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from det_losses.cli import TOOLS, main
from det_losses.paths import import_root


def test_without_a_tool_all_are_listed(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(tool in text for tool in TOOLS)


def test_a_misspelt_tool_gets_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert "error: no tool 'trian'. Did you mean 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("tool", [*TOOLS, "compare", "list-losses"])
def test_help_ends_with_a_command(tool, capsys):
    with pytest.raises(SystemExit) as info:
        main([tool, "--help"])
    assert info.value.code == 0
    name = tool.replace("-", "_")
    text = capsys.readouterr().out
    assert (
        f"det-losses {'compare' if name.startswith('compare') else name}"
        in text.split("example:")[1]
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_has_its_script(tool):
    text = (import_root() / "tools" / f"{tool}.py").read_text()
    assert f'main(["{tool}", *sys.argv[1:]])' in text
    assert callable(importlib.import_module(f"det_losses.cli.{tool}").main)


def test_a_script_runs_from_another_folder(tmp_path):
    script = import_root() / "tools" / "list_configs.py"
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_is_one_line_before_torch_is_imported(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/dev/null/absent"])
    assert main(["train", "quickstart/retinanet_shapes"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: No usable temporary directory found in ['/dev/null/absent']")
    assert "set the environment variable TMPDIR" in line


def test_a_deleted_current_folder_is_named(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert main(["list_configs"]) == 2
    assert "error: the current folder was deleted; change to" in capsys.readouterr().err


@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_without_a_home_folder_one_line_names_the_variable(home, monkeypatch, capsys):
    """A process of a service may have no HOME, and its user no entry in the list of users."""

    def absent(*args):
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", absent)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in home.items():
        monkeypatch.setenv(name, value)
    assert main(["list_losses"]) == 2
    assert capsys.readouterr().err == (
        "error: no home folder; set the environment variable HOME to an absolute path\n"
    )


def test_an_argument_that_is_not_utf8_is_refused_before_training(capsys):
    assert main(["train", "quickstart/retinanet_shapes", "--work-dir", "run\udcff"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the argument 'run\\udcff' is not valid UTF-8; rename")


CLOSED_STREAMS = """
from det_losses.cli import list_configs, main
import os, sys

def write(_):
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        assert stream.fileno() == number  # no file of a tool takes its place
    os.write(2, b"discarded")
    return 7

list_configs.main = write
sys.exit(main(["list_configs"]))
"""


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_the_null_device(closed, tmp_path):
    (tmp_path / "run.py").write_text(CLOSED_STREAMS)
    command = f"{sys.executable} {tmp_path / 'run.py'} {closed}"
    env = {**os.environ, "PYTHONPATH": str(import_root())}
    assert subprocess.run(command, shell=True, env=env).returncode == 7


def test_what_a_terminal_cannot_print_is_escaped(monkeypatch):
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii"))
    monkeypatch.setattr("det_losses.cli.list_configs.main", lambda _: print("66.4 ± 0.9") or 0)
    assert main(["list_configs"]) == 0
    assert content.getvalue() == b"66.4 \\xb1 0.9\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("argument", ["list_configs", "--version", "--help"])
def test_an_output_on_a_full_disk_is_one_line(argument):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "det_losses", argument]
        done = subprocess.run(
            command, cwd=import_root(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "error: [Errno 28] No space left on device\n"


def failing(monkeypatch, error):
    """Let a tool fail."""

    def fail(*args):
        raise error

    monkeypatch.setattr("det_losses.cli.list_configs.main", fail)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "error: not enough memory; `ulimit -v` shows the limit, if any\n"),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            "error: libtorch_cpu.so: failed to map segment from shared object: not enough memory "
            "(`ulimit -v`), or a file system mounted with noexec\n",
        ),
    ],
)
def test_too_little_memory_is_one_line(error, message, monkeypatch, capsys):
    failing(monkeypatch, error)
    assert main(["list_configs"]) == 2
    assert capsys.readouterr().err == message


def test_another_failed_import_is_a_bug(monkeypatch):
    failing(monkeypatch, ImportError("cannot import name 'nms'"))
    with pytest.raises(ImportError):
        main(["list_configs"])


def test_what_a_tool_prints_outside_of_its_checks_may_fail_too(monkeypatch, capsys):
    failing(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(SystemExit, match="2"):
        main(["list_configs"])
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("error", [MemoryError(), ImportError("numpy.core.multiarray failed")])
def test_an_interrupt_that_an_extension_turned_into_another_error_is_one(
    error, monkeypatch, capsys
):
    def interrupted(*args):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        raise error

    monkeypatch.setattr("det_losses.cli.list_configs.main", interrupted)
    assert main(["list_configs"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("arguments", [["list_configs"], ["train", "--help"], []])
def test_a_reader_that_ends_early_makes_no_traceback(arguments):
    command = [sys.executable, "-m", "det_losses", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=import_root(), **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 141)  # argparse ignores such an error


def test_a_misspelt_option_is_refused(capsys):
    with pytest.raises(SystemExit) as info:
        main(["train", "x", "--wrok-dir", "y"])
    assert info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: unrecognized arguments: --wrok-dir y. Did you mean '--work-dir'?"
    )
    assert error.endswith("\n'det-losses train --help' lists all options\n")


HELP_OF_ALL_TOOLS = """
import contextlib, io, sys
from det_losses.cli import TOOLS, main

HEAVY = (
    "cv2", "hotcoco", "hypothesis", "jinja2", "matplotlib", "mmengine", "pycocotools",
    "scipy", "torch", "torchvision",
    *(f"det_losses.{part}" for part in (
        "comparison", "conformance", "data", "engine", "models", "report", "statistics"
    )),
)
for tool in TOOLS:
    for arguments in (["--help"], ["--no-such-option"]):
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            with contextlib.redirect_stderr(io.StringIO()):
                main([tool, *arguments])
    found = [name for name in HEAVY if name in sys.modules]
    assert not found, (tool, found)

with contextlib.suppress(SystemExit):
    main(["train", "no_such_config"])
assert "det_losses.engine" in sys.modules
found = [name for name in ("det_losses.comparison", "det_losses.report") if name in sys.modules]
assert not found, found
"""


def test_help_imports_nothing_heavy_and_training_neither_compare_nor_report():
    done = subprocess.run([sys.executable, "-c", HELP_OF_ALL_TOOLS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_of_a_tool_is_one_line_and_status_130(monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("det_losses.cli.list_configs.main", interrupt)
    assert main(["list_configs"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before


INTERRUPTED_IMPORT = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
except KeyboardInterrupt:
    {lost}
    raise
"""


@pytest.mark.parametrize(
    "entry",
    [
        ["-m", "det_losses", "train", "no_config"],
        ["-c", "from det_losses.cli import main; exit(main())", "report", "no_folder"],
        [import_root() / "tools" / "list_losses.py"],
    ],
)
@pytest.mark.parametrize("lost", ["pass", "raise AttributeError('half imported') from None"])
def test_an_interrupt_while_torch_is_imported_is_one_line(entry, lost, tmp_path):
    """Also where the import replaces the exception, as numpy's extension does."""
    for name in ("torch", "mmengine", "numpy"):
        (tmp_path / f"{name}.py").write_text(INTERRUPTED_IMPORT.format(lost=lost))
    paths = {"PYTHONPATH": f"{tmp_path}:{import_root()}"}
    done = subprocess.run([sys.executable, *entry], capture_output=True, text=True, env=paths)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.5, 1.0])
def test_an_interrupt_at_any_moment_of_the_start_is_one_line(seconds):
    code = "print(flush=True); from det_losses.cli import main; exit(main(['train', 'no_config']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()  # Python itself has started
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    assert "Traceback" not in error
    assert process.returncode in (130, 2)  # a fast machine has found that there is no such config


def test_imports_are_not_collected_and_then_left_out_of_collections():
    code = """
import gc
from det_losses.cli import fast_imports
with fast_imports():
    assert not gc.isenabled()
assert gc.isenabled() and gc.get_freeze_count()
try:
    with fast_imports():
        raise KeyboardInterrupt
except KeyboardInterrupt:
    assert gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=import_root())
