import gc
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from det_losses.engine.run import claim_work_dir, is_finished, locked
from det_losses.errors import InputError
from det_losses.files import write_json


@pytest.fixture
def run_cfg(tmp_path):
    return Config({"model": {"type": "A"}, "work_dir": str(tmp_path)})


@pytest.fixture
def unfinished(run_cfg, tmp_path):
    run_cfg.dump(tmp_path / "config.py")
    (tmp_path / "epoch_1.pth").touch()
    write_json(tmp_path / "metrics.json", {"status": "running", "metrics": {}})
    return run_cfg


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_directory_without_checkpoints_can_be_used(run_cfg, tmp_path, resume):
    (tmp_path / "config.py").write_text("model = dict(type='Another')")
    claim_work_dir(run_cfg, resume)
    assert run_cfg.resume is False


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_finished_run_is_never_overwritten(unfinished, tmp_path, resume):
    write_json(tmp_path / "metrics.json", {"status": "done", "metrics": {}})
    assert is_finished(tmp_path)
    with pytest.raises(ValueError, match="contains a finished run, which is not overwritten"):
        claim_work_dir(unfinished, resume)


def test_an_unfinished_run_is_resumed_only_on_request(unfinished):
    with pytest.raises(ValueError, match="resume it with --resume, or give another --work-dir"):
        claim_work_dir(unfinished, None)
    claim_work_dir(unfinished, "auto")
    assert unfinished.resume == "auto"
    claim_work_dir(unfinished, None)  # the config asks for it
    assert unfinished.resume == "auto"
    unfinished.resume = "maybe"
    with pytest.raises(ValueError, match="resume: must be true, false or 'auto', got 'maybe'"):
        claim_work_dir(unfinished, None)


def test_an_unfinished_run_of_another_config_is_refused(unfinished):
    unfinished.model.type = "B"
    with pytest.raises(ValueError, match=r"a different config \(model.type: 'A' -> 'B'\)"):
        claim_work_dir(unfinished, "auto")


def test_checkpoints_without_a_config_are_not_overwritten(run_cfg, tmp_path):
    (tmp_path / "model.pth").touch()
    with pytest.raises(ValueError, match=r"contains checkpoints but no config\.py"):
        claim_work_dir(run_cfg, "auto")


# mmengine leaves the temporary file of a config open that it cannot read.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("content", ["model = dict(", "\0", "model = 1 / 0"])
def test_a_damaged_config_is_one_error(unfinished, tmp_path, content):
    (tmp_path / "config.py").write_text(content)
    message = r"config\.py is damaged \(\w+: .*another --work-dir"
    with pytest.raises(ValueError, match=message) as got:
        claim_work_dir(unfinished, "auto")
    assert "\n" not in str(got.value)
    del got
    gc.collect()


def test_resuming_from_a_checkpoint(run_cfg, tmp_path):
    checkpoint = tmp_path.parent / "from.pth"
    parts = ("meta", "state_dict", "optimizer", "message_hub")
    torch.save({part: {} for part in parts}, checkpoint)
    claim_work_dir(run_cfg, str(checkpoint))
    assert (run_cfg.resume, run_cfg.load_from) == (True, str(checkpoint))
    with pytest.raises(FileNotFoundError, match=r"--resume absent\.pth: no such checkpoint"):
        claim_work_dir(run_cfg, "absent.pth")


def test_a_second_training_in_a_directory_is_refused(tmp_path):
    script = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); "
        "print(flush=True); sys.stdin.read()"
    )
    first = [sys.executable, "-c", script, str(tmp_path / ".lock")]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen(first, **pipes) as process:
        process.stdout.readline()
        with pytest.raises(ValueError, match="is in use by another training"), locked(tmp_path):
            pass
    with locked(tmp_path) as new:  # free after the end of the first one
        assert not new
    with locked(tmp_path / "other") as new:
        assert new


@pytest.mark.parametrize("name", ["history.jsonl", "metrics.json", "config.py", "last_checkpoint"])
def test_a_directory_in_place_of_a_file_is_one_error(run_cfg, tmp_path, name):
    (tmp_path / name).mkdir()
    run_cfg.work_dir = str(tmp_path)
    with pytest.raises(InputError, match=f"{name}: is a directory, but training writes"):
        claim_work_dir(run_cfg, "auto")
