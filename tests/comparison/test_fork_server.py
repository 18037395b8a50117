"""Runs as forks of a server."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from training import train_here

from det_losses.comparison import fork_server, process
from det_losses.comparison.process import LocalExecutor, run_process

ENVIRONMENT = process._environment(
    [sys.executable, "-m", "det_losses"], {"OMP_NUM_THREADS": "2", "PYTHONDONTWRITEBYTECODE": "1"}
)
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
time.sleep(60)
"""
FACTS = """
import json, os, sys, torch
print(json.dumps([os.getsid(0) == os.getpid(), os.getppid(), torch.get_num_threads(), sys.argv]))
sys.exit(7)
"""
MODULES = '''
import json, sys, torch
from mmengine.hooks import Hook
from det_losses.registry import HOOKS
begin = set(sys.modules)
torch.set_num_threads(1)


@HOOKS.register_module(force=True)
class ModulesHook(Hook):
    """Prints the modules that were imported since this one."""

    priority = "LOWEST"

    def after_run(self, runner):
        print("later", json.dumps(sorted({*sys.modules} - begin)))
'''
BEGUN = "import time\nprint('begun', flush=True)\ntime.sleep({})\nraise SystemExit(0)\n"


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The folder of the module ``script``, which each run imports."""
    return tmp_path_factory.mktemp("scripts")


@pytest.fixture(scope="module")
def executor(scripts):
    """An executor, whose server the tests of this module share."""
    executor = LocalExecutor()
    yield executor
    executor.close()


@pytest.fixture
def run(executor, scripts, tmp_path, monkeypatch):
    """Run the ``train`` tool with a script: ``run(script)`` returns the status."""
    monkeypatch.setattr(process, "INTERVAL", 0.02)
    path = os.pathsep.join([str(scripts), ENVIRONMENT["PYTHONPATH"]])
    fixed = {**ENVIRONMENT, "PYTHONPATH": path}  # pytest changes its own from test to test
    monkeypatch.setattr(process, "_environment", lambda command, env: {**fixed, **(env or {})})

    def run(script, config="", tick=lambda: None, execute=executor.run, **options):
        (scripts / "script.py").write_text(script)
        (tmp_path / "config.py").write_text(f"{config}\ncustom_imports = dict(imports=['script'])")
        command = [sys.executable, "-m", "det_losses", "train", str(tmp_path / "config.py")]
        command += ["--work-dir", str(tmp_path / "run"), "--no-plan"]
        return execute(command, tmp_path / "log", tick, **{"keep_open": None, "env": {}, **options})

    return run


@pytest.fixture
def begun(tmp_path):
    """Make a ``tick`` that calls a function once, when the run has begun."""

    def make(function):
        def tick():
            log = tmp_path / "log"
            if not done and log.is_file() and log.read_text().strip():
                done.append(True)
                function()

        done = []
        return tick

    return make


def interrupt():
    raise KeyboardInterrupt


def test_a_fork_is_like_a_process_of_its_own(run, executor, tmp_path):
    status = run(FACTS)
    own_session, parent, threads, argv = json.loads((tmp_path / "log").read_text())
    assert (status, own_session, parent) == (7, True, executor._server._process.pid)
    assert threads == 2
    assert argv[0].endswith("det_losses/__main__.py")
    assert argv[1:3] == ["train", str(tmp_path / "config.py")]


def test_a_fork_trains_as_another_process_without_further_imports(
    run, tiny_config, scripts, tmp_path, monkeypatch
):
    hook = "custom_hooks = [dict(type='ModulesHook')]\n"
    assert run(MODULES, tiny_config.read_text() + hook) == 0
    lines = (tmp_path / "log").read_text().splitlines()
    later = next(json.loads(line[6:]) for line in lines if line.startswith("later "))
    packages = {name.partition(".")[0] for name in later}
    assert not packages & {"det_losses", "torchvision", "mmengine", "matplotlib", "hotcoco", "PIL"}
    forked = weights(tmp_path)
    monkeypatch.syspath_prepend(scripts)
    assert run("", tiny_config.read_text(), execute=train_here) == 0  # with one thread too
    here = weights(tmp_path)
    assert all(torch.equal(forked[name], here[name]) for name in here)


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_fork_trains_as_a_new_process(tiny_config, run, tmp_path, threads):
    found = []
    other = LocalExecutor()
    for execute in (other.run, run_process):
        env = {"OMP_NUM_THREADS": threads}
        assert run("", tiny_config.read_text(), execute=execute, env=env) == 0
        found.append(weights(tmp_path))
    other.close()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[1])


def weights(folder):
    """Return the weights of a run, and remove it."""
    found = torch.load(folder / "run" / "epoch_2.pth", weights_only=True)["state_dict"]
    (folder / "run").rename(folder / f"run_{time.time()}")
    return found


def test_a_killed_run_fails_alone(run, executor):
    server = executor._server
    assert run("import os\nos.kill(os.getpid(), 9)\n") == -signal.SIGKILL
    assert run("raise SystemExit(0)\n") == 0
    assert executor._server is server


def test_an_interrupt_terminates_the_run(run, begun, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(BEGUN.format(60), tick=begun(interrupt))
    assert "interrupted" in (tmp_path / "log").read_text()


def test_a_run_that_ignores_signals_is_killed_with_its_children(run, begun, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_GRACE", 0.1)
    with pytest.raises(KeyboardInterrupt):
        run(STUBBORN, tick=begun(interrupt))
    assert has_ended(int((tmp_path / "log").read_text()))


def has_ended(pid, seconds=5):
    """Return whether a process ends in time; an orphan stays as a zombie until init collects it."""
    for _ in range(int(seconds / 0.02)):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_an_interrupt_during_the_imports_starts_no_run(run, executor, tmp_path):
    server = executor._server._process
    server.send_signal(signal.SIGSTOP)  # as if it was still importing
    with pytest.raises(KeyboardInterrupt):
        run(BEGUN.format(0), tick=interrupt)
    server.send_signal(signal.SIGCONT)
    assert run("raise SystemExit(0)\n") == 0  # requests are handled in order
    assert (tmp_path / "log").read_text() == ""


def test_the_lock_is_held_by_the_run_alone(run, begun, tmp_path):
    def lock():
        with (tmp_path / "lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release():
        file.close()
        with pytest.raises(BlockingIOError):
            lock()

    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(BEGUN.format(0.2), tick=begun(release), keep_open=file.fileno()) == 0
    lock()


def test_other_commands_get_a_process_of_their_own(run, executor, tmp_path, monkeypatch):
    server = executor._server
    assert executor.run(["sh", "-c", "echo $PPID"], tmp_path / "log", lambda: None) == 0
    assert (tmp_path / "log").read_text().strip() == str(os.getpid())

    monkeypatch.setattr(process, "run_process", lambda *args, **kwargs: "of its own")
    assert run("", env={"OMP_NUM_THREADS": "1"}) == "of its own"
    assert executor._server is server

    monkeypatch.setattr(fork_server, "__name__", "no_such_module")
    other = LocalExecutor()
    assert run("", execute=other.run) == "of its own"
    other.close()


def test_a_run_whose_server_is_killed_goes_on(run, executor, begun, tmp_path, monkeypatch):
    def kill():
        executor._server._process.kill()
        executor._server._process.wait()
        with (tmp_path / "log").open("ab") as log:  # a request that comes before this is noticed
            assert not executor._server.fork(["x"], log, None).started(pytest.fail, 0.1)

    script = BEGUN.format(0.3).replace("raise", "print('end', flush=True)\nraise")
    assert run(script, tick=begun(kill)) == -signal.SIGKILL
    assert "end" in (tmp_path / "log").read_text()  # it was awaited; nobody knows its status
    monkeypatch.setattr(
        process, "ForkServer", lambda env: SimpleNamespace(env=env, close=lambda: None)
    )
    assert executor._serving({}).env == {}  # another one is started


COMPARISON = """
import pathlib, sys
from det_losses.comparison.process import LocalExecutor
executor = LocalExecutor()

def tick():
    if executor._server and "begun" in pathlib.Path("log").read_text():
        print(executor._server._process.pid, flush=True)

executor.run([sys.executable, "-m", "det_losses", "train", "config.py"], pathlib.Path("log"), tick)
"""


@pytest.mark.slow
def test_a_killed_comparison_leaves_its_run_and_no_server(tmp_path, monkeypatch):
    (tmp_path / "config.py").write_text("custom_imports = dict(imports=['script'])")
    (tmp_path / "script.py").write_text("import os\nprint(os.getpid())\n" + BEGUN.format(60))
    env = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"}
    command = [sys.executable, "-c", COMPARISON]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE) as comparison:
        server = int(comparison.stdout.readline())
        run = int((tmp_path / "log").read_text().split()[0])
        comparison.kill()
    assert has_ended(server)
    assert not has_ended(run, 0.1)
    os.killpg(run, signal.SIGKILL)


def test_a_server_ends_with_its_comparison_and_its_runs_go_on(tmp_path):
    # Of a comparison that is killed, the server sees that the other end of its socket is closed.
    requests, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with requests, control, answers, theirs, (tmp_path / "log").open("w") as log:
        server = os.fork()
        if server == 0:
            for other in (requests, answers, theirs):
                other.close()
            if fork_server.serve(control):
                time.sleep(60)
            os._exit(0)
        socket.send_fds(requests, [b'["det_losses"]'], [theirs.fileno(), log.fileno()])
        fork = json.loads(answers.recv(100))["pid"]
        requests.close()
        ended = has_ended(server)
        os.kill(server, signal.SIGKILL)  # so that a failure leaves none
        assert (ended, os.waitpid(server, 0)[1]) == (True, 0)
        assert not has_ended(fork, 0.1)
        os.killpg(fork, signal.SIGKILL)
        assert has_ended(fork)


def test_a_fork_that_cannot_use_the_gpu_starts_again(monkeypatch):
    commands = []
    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(os, "dup2", lambda *descriptors: None)
    monkeypatch.setattr(os, "close", lambda descriptor: None)
    monkeypatch.setattr(os, "execv", lambda program, command: commands.append(command))
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    for cuda in (False, True):
        monkeypatch.setattr("det_losses.engine.device.uses_cuda", lambda cuda=cuda: cuda)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            fork_server._become_run(["det_losses", "train"], theirs, 0)
    assert commands == [[sys.executable, "-m", "det_losses", "train"]]
