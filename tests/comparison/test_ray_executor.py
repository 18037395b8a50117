"""Runs on a Ray cluster: what a machine does with a job, and a cluster that loses a machine."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from training import compare

from det_losses.comparison import ray_executor as module
from det_losses.comparison.ray_executor import Job, RayExecutor, train_on_this_machine
from det_losses.engine.progress import PROGRESS_FILE
from det_losses.errors import InputError

# As the command of a forked run: prints, and writes what it reads into its directory.
SCRIPT = """
import os, pathlib, sys
config, folder, start = map(pathlib.Path, sys.argv[1:])
print("runs with", os.environ["OMP_NUM_THREADS"])
(folder / "metrics.json").write_text(config.read_text() + start.read_text() + str(folder))
(folder / "deep").mkdir(exist_ok=True)
(folder / "deep" / "epoch_1.pth").write_text("weights")
sys.exit(3)
"""


@pytest.fixture
def job(tmp_path):
    work_dir, start = tmp_path / "runs" / "IoULoss" / "seed_0", tmp_path / "baseline" / "fork.pth"
    for file, text in ((work_dir / "config.py", "config "), (start, "start ")):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    marker = work_dir / "some.marker"
    marker.touch()
    command = ("the driver's python", "-c", SCRIPT, str(work_dir / "config.py"), str(work_dir))
    env = {"OMP_NUM_THREADS": "2"}
    output = work_dir / "output.log"
    python = "the driver's python"
    return Job((*command, str(start)), work_dir, output, marker, env, python, tmp_path)


def test_a_machine_with_the_same_file_system_writes_into_the_directory(job):
    job.output.write_text("earlier\n")
    assert train_on_this_machine(job) == (3, None)
    assert job.output.read_text() == "earlier\nruns with 2\n"
    assert (job.work_dir / "metrics.json").read_text() == f"config start {job.work_dir}"


def test_paths_of_a_command_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("train.py", "train", "runs/a"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    found = module._absolute(["python", "train.py", "train", "runs/a", "no/file", "x.json"])
    script, run = str(tmp_path / "train.py"), str(tmp_path / "runs" / "a")
    assert found == ["python", script, "train", run, "no/file", "x.json"]


def test_a_command_runs_in_the_directory_of_the_comparison(job, tmp_path):
    (tmp_path / "mine.py").write_text("import os; print(os.getcwd())")
    here = module.replace(job, command=("the driver's python", "mine.py"))
    assert train_on_this_machine(here) == (0, None)
    assert job.output.read_text().strip() == str(tmp_path)


def test_the_files_of_another_machine_are_copied_back(job):
    job.output.write_text("earlier\n")
    files = module._packed(job.work_dir, job.command)
    for file in (job.marker, Path(job.command[-1])):
        file.unlink()
    assert train_on_this_machine(job) == (None, None)  # the files are asked for
    status, found = train_on_this_machine(module.replace(job, files=files))
    assert status == 3
    assert {each.name for each in job.work_dir.iterdir()} == {"config.py", "output.log"}
    module._unpack(found, job.work_dir)
    assert job.output.read_text() == "earlier\nruns with 2\n"
    text = (job.work_dir / "metrics.json").read_text()
    assert text.startswith("config start ") and str(job.work_dir) not in text
    assert (job.work_dir / "deep" / "epoch_1.pth").read_text() == "weights"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its parent")
def test_a_training_ends_with_the_worker_that_started_it(job, tmp_path):
    """Otherwise it would go on beside its repetition on another machine."""
    script = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"
    lasting = module.replace(job, command=(sys.executable, "-c", script))
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=train_on_this_machine, args=(lasting,))
    worker.start()
    pid = int(_soon(lambda: job.output.is_file() and job.output.read_text().strip()))
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert _soon(lambda: not _is_running(pid))


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _soon(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_ray_is_an_extra(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package ray: pip install 'det-losses\[ray\]'"):
        RayExecutor(None, 1, None)


@pytest.mark.parametrize("option", [{"address": "auto"}, {"gpus_per_run": 0.0}])
def test_options_of_ray_without_it(tiny_config, tmp_path, option):
    with pytest.raises(InputError, match=f"--{next(iter(option))[:4]}.* requires --executor ray"):
        compare(Config.fromfile(tiny_config), tmp_path, ["IoULoss"], **option)


def test_a_machine_has_room_for_the_scarcer_resource():
    machine = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}
    assert module._places(machine, 1, 0.25) == 8
    assert module._places(machine, 2, 0.25) == 4
    assert module._places(machine, 1, 1) == 2
    assert module._places(machine, 16, 0) == module._places({"CPU": 8.0}, 1, 1) == 0


@pytest.fixture
def cluster(monkeypatch):
    """A local cluster whose first machine runs nothing."""
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield found
    found.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's
class TestCluster:
    def test_a_lost_machine(self, tiny_config, tmp_path, cluster, capsys):
        """Its run resumes on the other one; the same command then finds nothing to do."""
        machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cfg = Config.fromfile(tiny_config)
        cfg.train_cfg.update(max_epochs=300, val_interval=300)
        root = tmp_path / "comparison"
        losses = ["L1Loss", "GIoULoss", "IoULoss"]
        options = dict(seeds=[0], executor="ray", address=cluster.address, resamples=100)

        def lose():
            running = lambda: len(list(root.glob(f"runs/*/*/{PROGRESS_FILE}"))) == 2  # noqa: E731
            assert _soon(running, 90)
            time.sleep(1)
            cluster.remove_node(machines[1], allow_graceful=False)

        thread = threading.Thread(target=lose)
        thread.start()
        rows = compare(cfg, root, losses, **options)
        thread.join()
        out = capsys.readouterr().out
        assert "Ray cluster: 3 machines, room for 2 runs at a time" in out
        assert [row["status"] for row in rows] == ["done"] * 3
        logs = [file.read_text() for file in root.glob("runs/*/*/output.log")]
        starts = [log.count("6 images, batch size 3: 300 epochs") for log in logs]
        assert sorted(starts) == [1, 1, 2]
        assert "resumed epoch" in logs[starts.index(2)]
        assert not list(root.rglob("*.marker"))
        assert (root / "report.html").is_file()
        compare(cfg, root, losses, **options)
        assert capsys.readouterr().out.count("(already finished)") == 3

    def test_status_interrupt_and_impossible_resources(self, tmp_path, cluster):
        cluster.add_node(num_cpus=1)
        with pytest.raises(
            InputError, match=r"--gpus-per-run 1; its .*\(CPUs and GPUs\) .*1 and 0"
        ):
            RayExecutor(cluster.address, 1, 1)
        executor = RayExecutor(cluster.address, 1, None)
        output = tmp_path / "output.log"
        failing = [sys.executable, "-c", "import sys; print('out'); sys.exit(5)"]
        assert executor.run(failing, output, lambda: None) == 5
        assert output.read_text() == "out\n"

        def interrupt():
            if "begun" in output.read_text():
                raise KeyboardInterrupt

        script = "import time\nprint('begun', flush=True)\ntry: time.sleep(60)\nfinally: print('x')"
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            executor.run([sys.executable, "-c", script], output, interrupt)
        assert time.monotonic() - begin < 30
        # The machine is free again.
        assert executor.run(failing, output, lambda: None) == 5
        executor.close()
