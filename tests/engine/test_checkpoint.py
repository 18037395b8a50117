"""Checkpoints are whole, verified, and found in the run's own directory."""

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from training import run

from det_losses.engine import SafeCheckpointHook, build_runner
from det_losses.errors import InputError
from det_losses.models.weight_files import read_checkpoint

EPOCHS = 3  # of 3 steps


def weights(folder, epoch=EPOCHS):
    return torch.load(Path(folder) / f"epoch_{epoch}.pth", weights_only=True)["state_dict"]


def assert_same_weights(ours, theirs):
    expected, got = weights(ours), weights(theirs)
    assert all(torch.equal(expected[key], got[key]) for key in expected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, toy_cfg_in):
    """The directory of an uninterrupted run."""
    return run(toy_cfg_in(tmp_path_factory.mktemp("whole"), EPOCHS)).work_dir


@pytest.fixture
def stopped(toy_cfg):
    """The directory of a run that was stopped in its third epoch."""

    class Stop(Hook):
        def before_train_iter(self, runner, *args, **kwargs):
            if runner.iter == 7:
                raise KeyboardInterrupt

    cfg = toy_cfg("stopped", EPOCHS)
    with pytest.raises(KeyboardInterrupt):
        run(cfg, Stop())
    return Path(cfg["work_dir"])


@pytest.fixture
def resumed(toy_cfg_in):
    """Resume the run in a directory."""
    return lambda folder: run(toy_cfg_in(folder, EPOCHS, resume=True))


def flip_bit(path, position):
    content = bytearray(path.read_bytes())
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)


def middle(path):
    """A position in the weights of a checkpoint."""
    value = torch.load(path, weights_only=True)["state_dict"]["box.weight"].numpy().tobytes()
    return 8 * path.read_bytes().index(value) + 37


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: os.truncate(path, path.stat().st_size // 2),
            lambda path: os.truncate(path, path.stat().st_size - 30),
            lambda path: os.truncate(path, 0),
            lambda path: flip_bit(path, middle(path)),
            lambda path: path.write_bytes(b"text"),
            lambda path: path.unlink(),
        ],
        ids=["half", "cut", "empty", "bit", "text", "removed"],
    )
    def test_a_bad_newest_checkpoint_is_skipped(self, resumed, whole, stopped, damage, capfd):
        damage(stopped / "epoch_2.pth")
        resumed(stopped)
        (line,) = [line for line in capfd.readouterr().out.splitlines() if "WARNING" in line]
        assert "epoch_2.pth is " in line
        assert line.endswith("; resuming from epoch_1.pth")
        assert_same_weights(whole, stopped)

    def test_without_a_good_checkpoint_the_run_starts_again(self, resumed, whole, stopped, capfd):
        for path in stopped.glob("*.pth"):
            os.truncate(path, 100)
        resumed(stopped)
        assert "; training starts from the beginning\n" in capfd.readouterr().out
        assert_same_weights(whole, stopped)

    def test_every_flipped_bit_is_noticed_or_harmless(self, stopped):
        path = stopped / "epoch_1.pth"
        expected = read_checkpoint(path)["state_dict"]
        content, draw = path.read_bytes(), random.Random(0)
        for _ in range(300):
            flip_bit(path, draw.randrange(8 * len(content)))
            try:
                found = read_checkpoint(path)["state_dict"]
            except InputError as error:
                assert str(path) in str(error)
            else:
                assert found.keys() == expected.keys()
                assert all(torch.equal(found[key], expected[key]) for key in expected)
            path.write_bytes(content)

    def test_a_file_that_may_not_be_read_is_no_damage(self, stopped, monkeypatch):
        def refuse(path, *args, **kwargs):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("det_losses.models.weight_files.open", refuse, raising=False)
        with pytest.raises(PermissionError):
            read_checkpoint(stopped / "epoch_1.pth")


class TestPlace:
    @pytest.mark.parametrize("pointer", [b"", b"/som", b"\xff\xfe", None])
    def test_the_newest_checkpoint_is_found_without_the_pointer(
        self, resumed, stopped, pointer, capfd
    ):
        file = stopped / "last_checkpoint"
        assert file.read_text() == "epoch_2.pth"
        file.unlink() if pointer is None else file.write_bytes(pointer)
        resumed(stopped)
        assert "resumed epoch: 2, iter: 6" in capfd.readouterr().out

    @pytest.mark.parametrize("transfer", [shutil.copytree, shutil.move])
    def test_a_copied_or_moved_run_continues_from_its_own_files(
        self, resumed, whole, stopped, transfer, tmp_path, capfd
    ):
        # as mmengine writes it
        (stopped / "last_checkpoint").write_text(str(stopped / "epoch_2.pth"))
        transfer(stopped, tmp_path / "other")
        if stopped.exists():
            os.truncate(stopped / "epoch_2.pth", 0)
        resumed(tmp_path / "other")
        out = capfd.readouterr().out
        assert "resumed epoch: 2, iter: 6" in out
        assert "WARNING" not in out
        assert_same_weights(whole, tmp_path / "other")

    def test_a_copied_run_leaves_the_best_checkpoint_of_the_first(self, toy_cfg, tmp_path):
        def cfg(name, epochs, **changes):
            made = toy_cfg(name, epochs, **changes)
            made["default_hooks"]["checkpoint"].update(save_best="AP", rule="greater")
            return made

        class Better(Hook):  # the second evaluation is better, so the first best file is removed
            priority = "VERY_HIGH"

            def after_val_epoch(self, runner, metrics=None):
                metrics["AP"] = 0.1 * runner.epoch

        first = Path(run(cfg("first", 1), Better()).work_dir)
        shutil.copytree(first, tmp_path / "copy")
        run(cfg("copy", 2, resume=True), Better())
        assert [path.name for path in first.glob("best_*")] == ["best_AP_epoch_1.pth"]
        assert [p.name for p in (tmp_path / "copy").glob("best_*")] == ["best_AP_epoch_2.pth"]

    def test_checkpoints_in_another_directory_are_found(self, toy_cfg, tmp_path, capfd):
        cfg = toy_cfg(epochs=1)
        cfg["default_hooks"]["checkpoint"]["out_dir"] = str(tmp_path / "out")
        run(cfg)
        assert (tmp_path / "out" / "run" / "epoch_1.pth").is_file()
        cfg["train_cfg"]["max_epochs"] = 2
        run({**cfg, "resume": True})
        assert "resumed epoch: 1, iter: 3" in capfd.readouterr().out


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from conftest import make_cfg
from mmengine.fileio import LocalBackend
from det_losses.engine import build_runner

def put(backend, content, path):
    with open(path, "wb") as file:
        file.write(content if "epoch_1" in path else content[:5000])
    if "epoch_2" in path:
        os.kill(os.getpid(), signal.SIGKILL)

LocalBackend.put = put
build_runner(make_cfg({work_dir!r}, {epochs})).train()
"""


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it, so the files are those that a kill leaves."""


class TestKill:
    def killed(self, cfg, *hooks):
        with pytest.raises(Killed):
            run(cfg, *hooks)
        return cfg["work_dir"]

    def check(self, folder, whole, resumed):
        resumed(folder)
        assert_same_weights(whole, folder)
        assert not list(Path(folder).glob("*.part"))

    def test_sigkill_in_the_write_of_a_checkpoint(self, whole, resumed, toy_cfg):
        folder = toy_cfg("killed")["work_dir"]
        here = str(Path(__file__).parent)
        script = SCRIPT.format(folder=here, work_dir=folder, epochs=EPOCHS)
        status = subprocess.run([sys.executable, "-c", script], capture_output=True).returncode
        assert status == -signal.SIGKILL
        self.check(folder, whole, resumed)

    @pytest.mark.parametrize("number", [1, 2, 3])
    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
    def test_in_the_write_of_a_checkpoint(
        self, whole, resumed, toy_cfg, monkeypatch, number, share
    ):
        writes = []

        def put(backend, content, path):
            writes.append(path)
            if len(writes) == number:
                Path(path).write_bytes(content[: int(share * len(content))])
                raise Killed
            Path(path).write_bytes(content)

        with monkeypatch.context() as patch:
            patch.setattr(LocalBackend, "put", put)
            folder = self.killed(toy_cfg("killed", EPOCHS))
        self.check(folder, whole, resumed)

    @pytest.mark.parametrize(
        ("stage", "step"),
        [
            ("before_train_iter", 4),
            ("before_val_epoch", 3),
            ("before_val_iter", 6),
            ("after_val_epoch", 3),
        ],
    )
    def test_in_training_and_evaluation(self, whole, resumed, toy_cfg, stage, step):
        class Kill(Hook):
            def kill(self, runner, **kwargs):
                if runner.iter == step:
                    raise Killed

        hook = Kill()
        setattr(hook, stage, hook.kill)
        self.check(self.killed(toy_cfg("killed", EPOCHS), hook), whole, resumed)


def test_a_full_disk_leaves_the_old_file_and_says_so(toy_cfg, monkeypatch, tmp_path):
    def put(backend, content, path):
        Path(path).write_bytes(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalBackend, "put", put)
    with pytest.raises(InputError, match=r"epoch_1\.pth: No space left on device"):
        run(toy_cfg(epochs=1))
    assert not list((tmp_path / "run").glob("epoch_1.pth*"))


class TestLoading:
    @pytest.fixture
    def file(self, tmp_path):
        return tmp_path / "given.pth"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"state_dict": {"other.weight": torch.ones(2)}}, "(it has 'other.weight', the model"),
            ({"state_dict": {"box.bias": torch.ones(3)}}, "the name and shape of one in the model"),
            ({}, "it has no tensors"),
            ([1, 2], "is not a checkpoint: it contains a list"),
        ],
    )
    def test_a_file_without_weights_of_the_model_is_refused(self, toy_cfg, file, content, message):
        torch.save(content, file)
        with pytest.raises(InputError) as info:
            build_runner(toy_cfg(load_from=str(file)))
        assert str(file) in str(info.value) and message in str(info.value)

    @pytest.mark.parametrize("keep", [0, 50, 400])
    def test_a_damaged_file_is_refused(self, toy_cfg, file, keep):
        torch.save({"box.bias": torch.ones(4)}, file)
        os.truncate(file, keep)
        with pytest.raises(InputError, match=r"given\.pth is not a checkpoint, or it is damaged"):
            build_runner(toy_cfg(load_from=str(file)))

    def test_an_address_that_cannot_be_read_is_refused(self, toy_cfg):
        url = "http://127.0.0.1:9/weights.pth"  # the discard port, where nothing listens
        with pytest.raises(InputError, match=rf"load_from={url}: cannot be loaded \(URLError: "):
            build_runner(toy_cfg(load_from=url))

    def test_the_advice_for_a_checkpoint_of_mmengine_works(self, toy_cfg, file):
        state = {"box.bias": torch.full((4,), 7.0)}
        history = HistoryBuffer([1.0], [1])
        torch.save({"state_dict": state, "message_hub": {"log_scalars": {"loss": history}}}, file)
        with pytest.raises(InputError, match=r"\(mmengine\.logging\.history_buffer") as info:
            build_runner(toy_cfg(load_from=str(file)))
        assert "\n" not in str(info.value)
        advice = str(info.value).split("`")[1].replace("python -c", f"{sys.executable} -c")
        subprocess.run(advice, shell=True, check=True)
        runner = build_runner(toy_cfg(load_from=str(file.with_name("given.weights.pth"))))
        runner.load_or_resume()
        assert torch.equal(runner.model.box.bias, state["box.bias"])

    def test_the_advice_for_resuming_from_weights_works(self, toy_cfg, file):
        torch.save({"state_dict": {"box.bias": torch.full((4,), 7.0)}}, file)
        with pytest.raises(InputError, match="has no meta and no optimizer and no ") as info:
            build_runner(toy_cfg(load_from=str(file), resume=True))
        assert str(info.value).endswith(f"use --weights-from {file}")
        build_runner(toy_cfg(load_from=str(file)))

    def test_resuming_with_another_model_is_refused(self, toy_cfg, whole):
        checkpoint = torch.load(Path(whole) / "epoch_3.pth", weights_only=True)
        checkpoint["state_dict"]["box.bias"] = torch.ones(5)
        torch.save(checkpoint, Path(whole) / "other.checkpoint")
        with pytest.raises(InputError, match=r"it has no 'box\.bias' of its shape"):
            build_runner(toy_cfg(load_from=f"{whole}/other.checkpoint", resume=True))


class TestSafeCheckpoint:
    def saved(self, **entries):
        checkpoint = {"message_hub": {"log_scalars": {}, "runtime_info": entries}}
        SafeCheckpointHook().before_save_checkpoint(None, checkpoint)
        return checkpoint["message_hub"]["runtime_info"]

    def test_histories_are_restored(self):
        history = HistoryBuffer([1.5, 2.5], [1, 2], max_length=7)
        state = {"message_hub": {"log_scalars": {"train/loss": history}}}
        hook = SafeCheckpointHook()
        hook.before_save_checkpoint(None, state)
        hook.after_load_checkpoint(None, state)
        back = state["message_hub"]["log_scalars"]["train/loss"]
        back.update(4.0)
        assert history.data[0].tolist() == [1.5, 2.5]
        assert back.data[0].tolist() == [1.5, 2.5, 4.0]
        assert back.data[1].tolist() == [1, 2, 1]
        assert (back.max_length, back.data[0].dtype) == (7, np.float64)

    def test_numpy_becomes_plain(self):
        got = self.saved(a=np.float64(0.5), b=(np.int64(3), [np.bool_(True)]), c={np.str_("x"): 1})
        assert got == {"a": 0.5, "b": (3, [True]), "c": {"x": 1}}
        assert [type(got["a"]), type(got["b"][0]), type(got["b"][1][0])] == [float, int, bool]
        assert torch.equal(self.saved(a=np.arange(3))["a"], torch.arange(3))

    def test_an_entry_that_cannot_be_stored_is_named(self):
        with pytest.raises(
            TypeError, match=r"message_hub\['runtime_info'\]\['where'\] is a RootLogger"
        ):
            self.saved(where=logging.getLogger())

    def test_model_weights_are_unchanged(self):
        state = torch.nn.Linear(2, 2).state_dict()
        stored = {"state_dict": state}
        SafeCheckpointHook().before_save_checkpoint(None, stored)
        assert stored["state_dict"] is state

    def test_checkpoint_without_messages_loads(self):
        SafeCheckpointHook().after_load_checkpoint(None, {"state_dict": {}})
