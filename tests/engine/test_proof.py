"""A run whose model does not train the losses that its config names is stopped."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from det_losses.engine import LossProofError, build_runner
from det_losses.engine.proof import fixed_batches
from det_losses.registry import MODELS

ToyDetector = MODELS.get("ToyDetector")


def test_the_probes_batches_are_the_datasets_first_images_with_boxes():
    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 9

        def __getitem__(self, index):
            return index, {"boxes": torch.ones(index % 3, 4)}

    def read(size):
        loader = DataLoader(Data(), size, shuffle=True, collate_fn=lambda x: [i for i, _ in x])
        return list(fixed_batches(loader))

    assert read(16) == [[1, 2], [4, 5], [7, 8]]
    assert read(1) == [[1], [2], [4], [5], [7], [8]]


@MODELS.register_module()
class FaultyToy(ToyDetector):
    """From step ``after`` on its box loss is no more the one that it holds."""

    def __init__(self, fault=None, after=0, **kwargs):
        super().__init__(**kwargs)
        self.fault, self.after, self.calls = fault, after, 0

    def forward(self, images, targets, mode="loss"):
        outputs = super().forward(images, targets, mode)
        if mode == "loss":
            self.calls += 1
            if self.calls > self.after:
                self._spoil(outputs)
        return outputs

    def _spoil(self, outputs):
        if self.fault == "own loss":
            outputs["loss_bbox"] = self.box.bias.square().sum()
        if self.fault == "no gradient":
            outputs["loss_bbox"] = outputs["loss_bbox"].detach()


class Steps(Hook):
    def __init__(self):
        self.count = 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.count += 1


def run(cfg, *hooks):
    runner = build_runner(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


def status(cfg):
    path = Path(cfg["work_dir"]) / "metrics.json"
    return json.loads(path.read_text())["status"] if path.is_file() else None


class TestRun:
    def test_the_record(self, toy_cfg, record):
        runner = run(toy_cfg(epochs=2))
        proof = record(runner)["proof"]
        assert proof.keys() == {"loss_cls", "loss_bbox"}
        for slot, entry in proof.items():
            assert entry.keys() == {"loss", "hash", "calls", "probe"}
            assert entry["loss"] == repr(runner.model.losses[slot])
            assert len(entry["hash"]) == 64
            assert entry["calls"] == 6  # 2 epochs of 3 batches
            assert all(0 <= entry["probe"][when] < 1e-6 for when in ("start", "end"))

    def test_by_iterations(self, toy_cfg, record):
        cfg = toy_cfg(train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2))
        cfg["train_dataloader"]["sampler"]["type"] = "InfiniteSampler"
        cfg["log_processor"]["by_epoch"] = False
        cfg["default_hooks"]["checkpoint"].update(by_epoch=False, interval=2)
        got = record(run(cfg))
        assert (got["status"], got["proof"]["loss_bbox"]["calls"]) == ("done", 4)

    def test_a_wrong_loss_stops_the_run_before_the_first_step(self, toy_cfg):
        steps = Steps()
        cfg = toy_cfg(model=dict(type="FaultyToy", fault="own loss"))
        with pytest.raises(LossProofError, match=r"loss_bbox: the config names ToyLoss\(beta=0.5"):
            run(cfg, steps)
        assert (steps.count, status(cfg)) == (0, None)

    def test_a_loss_that_goes_wrong_later_leaves_the_run_unfinished(self, toy_cfg):
        cfg = toy_cfg(epochs=2, model=dict(type="FaultyToy", fault="own loss", after=5))
        with pytest.raises(LossProofError, match="loss_bbox: the config names"):
            run(cfg)
        assert status(cfg) == "running"

    def test_a_loss_that_no_step_calls(self, toy_cfg):
        class Bypass(Hook):
            """Let the model compute the same by another object, in steps alone."""

            def before_train_iter(self, runner, batch_idx, data_batch=None):
                self.loss = runner.model.losses["loss_bbox"]
                runner.model.losses["loss_bbox"] = copy.copy(self.loss)
                runner.model.losses["loss_bbox"]._forward_pre_hooks = {}

            def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
                runner.model.losses["loss_bbox"] = self.loss

        cfg = toy_cfg(epochs=2)
        with pytest.raises(LossProofError, match=r"loss_bbox: ToyLoss.* in none of 6 training ste"):
            run(cfg, Bypass())
        assert status(cfg) == "running"

    def test_a_loss_without_a_gradient_says_so_and_is_not_done(self, toy_cfg, capfd):
        cfg = toy_cfg(epochs=1)

        class Flat(Hook):
            priority = "VERY_HIGH"

            def before_train(self, runner):
                runner.model.losses["loss_bbox"].forward = lambda pred, target: 0 * pred.sum()

        with pytest.raises(LossProofError, match=r"no gradient of ToyLoss.* nothing shows that"):
            run(cfg, Flat())
        assert "loss_bbox: on none of the batches that were tried" in capfd.readouterr().out
        assert status(cfg) == "running"

    def test_a_resumed_run_counts_on(self, toy_cfg, record):
        whole = record(run(toy_cfg("whole", epochs=2)))["proof"]
        first = record(run(toy_cfg(epochs=1)))["proof"]
        assert first["loss_bbox"]["calls"] == 3
        resumed = record(run(toy_cfg(epochs=2, resume=True)))["proof"]
        assert resumed == whole

    def test_code_that_changed_since_is_refused(self, toy_cfg, monkeypatch):
        run(toy_cfg(epochs=1))
        monkeypatch.setattr("det_losses.engine.proof.loss_hash", lambda loss: "another")
        cfg = toy_cfg(epochs=2, resume=True)
        with pytest.raises(LossProofError, match="loss_cls: configuration or code of CrossEntropy"):
            run(cfg)

    def test_a_model_without_losses_has_nothing_to_prove(self, toy_cfg, record):
        class Foreign(ToyDetector):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.parts = dict(self.losses.items())
                del self.losses

            def forward(self, *args, **kwargs):
                self.__dict__["losses"] = self.parts
                try:
                    return super().forward(*args, **kwargs)
                finally:
                    del self.__dict__["losses"]

        MODELS.register_module(module=Foreign, force=True)
        got = record(run(toy_cfg(epochs=1, model=dict(type="Foreign", num_classes=None))))
        assert (got["status"], got["proof"], got["losses"]) == ("done", {}, {})

    def test_the_hook_changes_no_weight(self, toy_cfg):
        with_proof, without = toy_cfg("with"), toy_cfg("without")
        del without["default_hooks"]["loss_proof"]
        ours, theirs = (run(cfg).model.state_dict() for cfg in (with_proof, without))
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import conftest, test_proof
from det_losses.engine import LossProofError, build_runner

cfg = conftest.make_cfg({work_dir!r}, epochs=2, launcher="pytorch", model={model!r})
try:
    build_runner(cfg).train()
except LossProofError as error:
    print("REFUSED", error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("after", "refused"), [(0, True), (99, False)])
def test_two_processes_agree(tmp_path, after, refused):
    model = dict(type="FaultyToy", num_classes=None, fault="own loss", after=after)
    folder, work_dir = str(Path(__file__).parent), str(tmp_path / "run")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=folder, work_dir=work_dir, model=model))
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("torchrun")),
            *("--standalone", "--nproc-per-node", "2", str(script)),
        ],
        capture_output=True,
        text=True,
        cwd=root,
        env={"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # Rank 0 probes, and both end with what it found; neither waits for the other.
    assert done.stdout.count("REFUSED loss_bbox: the config names ToyLoss") == 2 * refused
    assert status({"work_dir": work_dir}) == (None if refused else "done")
    if not refused:
        record = json.loads((tmp_path / "run" / "metrics.json").read_text())
        # 2 epochs of 6 images, two a step in each of two processes.
        assert record["proof"]["loss_bbox"]["calls"] == record["iter"] == 4
