"""The record of the losses of a run, and errors if they differ from the config."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from torch import nn
from training import run

from det_losses.engine import LossRecordError, LossRecordHook
from det_losses.engine.loss_record import matches_config
from det_losses.losses import build_loss
from det_losses.registry import MODELS

ToyDetector = MODELS.get("ToyDetector")


@MODELS.register_module()
class FaultyToy(ToyDetector):
    """The toy with a box loss of the config, and one of the faults that a detector may have."""

    def __init__(self, fault=None, loss_bbox=None, **kwargs):
        super().__init__(**kwargs)
        self.fault = fault
        self.loss_sources = {"loss_bbox": "the config"}
        if loss_bbox is not None:
            other = "GIoULoss" if fault == "another loss" else loss_bbox
            self.losses["loss_bbox"] = build_loss(other)

    def forward(self, images, targets, mode="loss"):
        named = self.losses["loss_bbox"]
        if self.fault == "own copy" and mode == "loss":
            self.losses["loss_bbox"] = copy.copy(named)
            self.losses["loss_bbox"]._forward_pre_hooks = {}
        outputs = super().forward(images, targets, mode)
        self.losses["loss_bbox"] = named
        if self.fault == "no gradient" and mode == "loss":
            outputs["loss_bbox"] = outputs["loss_bbox"].detach()
        return outputs


class Steps(Hook):
    def __init__(self):
        self.count = 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.count += 1


def faulty(fault=None, **losses):
    return dict(type="FaultyToy", num_classes=None, fault=fault, **losses)


def test_a_resumed_run_continues_the_record_without_changing_weights(toy_cfg, record, capfd):
    model = faulty(loss_bbox="EIoULoss(loss_weight=0.1)")
    without = toy_cfg("without", epochs=2, model=model)
    del without["default_hooks"]["loss_record"]
    plain = run(without)
    run(toy_cfg(epochs=1, model=model))
    capfd.readouterr()
    resumed = run(toy_cfg(epochs=2, model=model, resume=True))
    out = capfd.readouterr().out
    assert "Active losses:\n  loss_cls   CrossEntropyLoss()\n  loss_bbox  EIoULoss(eps=" in out
    assert "loss_weight=0.1, smooth_point=None)  (the config)\n" in out
    assert out.index("Active losses") < out.index("Epoch(train)")
    assert record(resumed)["proof"] == {
        # 2 epochs of 3 batches
        slot: {"loss": repr(loss), "calls": 6, "gradient": True}
        for slot, loss in resumed.model.losses.items()
    }
    weights = plain.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in
               resumed.model.state_dict().items())  # fmt: skip


def test_a_loss_that_differs_from_the_config_stops_the_run_before_training(toy_cfg):
    steps = Steps()
    cfg = toy_cfg(model=faulty("another loss", loss_bbox="EIoULoss"))
    with pytest.raises(
        LossRecordError, match=r"loss_bbox: the config names EIoULoss, the model ha"
    ):
        run(cfg, steps)
    assert steps.count == 0


def test_a_loss_that_the_model_does_not_call_stops_the_run_in_the_first_step(toy_cfg):
    steps = Steps()
    cfg = toy_cfg(model=faulty("own copy"))
    with pytest.raises(LossRecordError, match=r"loss_bbox: the first training step did not call T"):
        run(cfg, steps)
    assert steps.count == 0
    assert not list(Path(cfg["work_dir"]).glob("*.pth"))


def test_a_loss_without_a_gradient_is_a_warning_and_recorded(toy_cfg, record, capfd):
    got = record(run(toy_cfg(epochs=1, model=faulty("no gradient"))))
    assert got["status"] == "done"
    assert got["proof"]["loss_bbox"]["gradient"] is False
    assert got["proof"]["loss_cls"]["gradient"] is True
    out = capfd.readouterr().out
    assert "WARNING - loss_bbox: no finite, nonzero gradient of ToyLoss(beta=0.5" in out
    assert "loss_cls: in the whole" not in out


def test_a_gradient_may_come_late(toy_cfg, record):
    class EmptyAtFirst(Hook):
        """As data whose first batches have no positives: no row reaches the box loss."""

        def before_train(self, runner):
            loss = runner.model.losses["loss_bbox"]
            forward = loss.forward
            loss.forward = lambda pred, target: forward(pred, target) * (runner.iter > 1)

    proof = record(run(toy_cfg(epochs=1), EmptyAtFirst()))["proof"]
    assert proof["loss_bbox"] == {
        "loss": "ToyLoss(beta=0.5, loss_weight=1.0)",
        "calls": 3,
        "gradient": True,
    }


@pytest.mark.parametrize(
    ("factors", "seen"),
    [((0.0, 0.0), False), ((float("inf"), 0.0), False), ((float("inf"), 2.0), True)],
)
def test_a_gradient_counts_if_it_is_finite_and_not_zero(factors, seen):
    # The gradient of f * sum(x) is f. Mixed precision repeats a step whose gradient is infinite.
    hook, loss = LossRecordHook(), nn.L1Loss()
    hook._proof["loss_bbox"] = entry = {"calls": 0, "gradient": False}
    for factor in factors:
        pred = torch.ones(3, 4, requires_grad=True)
        hook._count_call("loss_bbox", loss, (), {"pred": pred})
        (factor * pred).sum().backward()
    assert entry == {"calls": 2, "gradient": seen}


def test_a_weight_of_zero_needs_no_gradient(toy_cfg, record, capfd):
    model = dict(type="ToyDetector", num_classes=None, loss_weight=0.0)
    assert record(run(toy_cfg(epochs=1, model=model)))["proof"]["loss_bbox"]["gradient"] is False
    assert "nonzero gradient" not in capfd.readouterr().out


def test_a_resume_with_another_loss_is_refused(toy_cfg):
    run(toy_cfg(epochs=1))
    other = dict(type="ToyDetector", num_classes=None, loss_weight=2.0)
    with pytest.raises(
        LossRecordError, match=r"but this run was started with ToyLoss\(beta=0.5, loss_w"
    ):
        run(toy_cfg(epochs=2, resume=True, model=other))


def test_a_model_without_losses_is_not_checked(toy_cfg, record):
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


INNER = dict(type="InnerIoU", loss="CIoULoss", ratio=0.7)


@pytest.mark.parametrize(
    ("named", "held", "expected"),
    [
        ("GIoULoss", "GIoULoss", True),
        ("det_losses.GIoULoss", "GIoULoss", True),
        ("GIoULoss", "DIoULoss", False),
        # What the config does not state may be a published setting.
        ("GIoULoss", "GIoULoss(loss_weight=10)", True),
        ("GIoULoss(loss_weight=10)", "GIoULoss", False),
        (dict(type="GIoULoss", eps=1e-3), "GIoULoss(eps=1e-3)", True),
        (dict(type="GIoULoss", eps=1e-3), "GIoULoss", False),
        (INNER, INNER, True),
        ("InnerIoU(CIoULoss)", "InnerIoU(CIoULoss)", True),
        ("InnerIoU(CIoULoss(eps=1e-3))", "InnerIoU(CIoULoss)", False),
        ("InnerIoU(CIoULoss)", "InnerIoU(GIoULoss)", False),
        (INNER, "InnerIoU(CIoULoss, ratio=0.8)", False),
        ("SumLoss(L1Loss, GIoULoss)", "SumLoss(L1Loss, GIoULoss)", True),
        ("SumLoss(L1Loss, GIoULoss)", "SumLoss(L1Loss, GIoULoss, DIoULoss)", False),
        ("SumLoss(L1Loss, GIoULoss)", "SumLoss(L1Loss, DIoULoss)", False),
        # num_classes comes from the data.
        ("SeesawLoss(p=0.5)", "SeesawLoss(num_classes=3, p=0.5)", True),
        (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(), True),
        (nn.CrossEntropyLoss(), nn.L1Loss(), False),
        (dict(type=nn.CrossEntropyLoss), nn.CrossEntropyLoss(), True),
    ],
    ids=str,
)
def test_a_loss_matches_its_config(named, held, expected):
    assert matches_config(named, build_loss(held)) is expected


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import conftest, test_loss_record, torch
from mmengine.config import Config
from det_losses.engine import LossRecordError, build_runner
from det_losses.engine.run import train_run

cfg = conftest.make_cfg({work_dir!r}, epochs=2, launcher="pytorch", model={model!r})
try:
    train_run(build_runner(cfg), Config(cfg))
except LossRecordError as error:
    sys.stdout.write(f"REFUSED {{error}}\\n")  # in one piece, beside the other process
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["own copy", None])
def test_two_processes_agree(tmp_path, fault):
    folder, work_dir = str(Path(__file__).parent), str(tmp_path / "run")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=folder, work_dir=work_dir, model=faulty(fault)))
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("torchrun")),
            *("--standalone", "--nproc-per-node", "2", str(script)),
        ],
        capture_output=True,
        text=True,
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root}/tests", "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("REFUSED loss_bbox: the first training step did not") == 2 * bool(
        fault
    )
    if fault is None:
        record = json.loads((tmp_path / "run" / "metrics.json").read_text())
        # 2 epochs of 6 images, two a step in each of two processes.
        assert record["proof"]["loss_bbox"]["calls"] == record["iter"] == 4


def test_losses_read_values_on_a_gpu_in_the_first_step_only(toy_cfg):
    class Watch(Hook):
        def __init__(self):
            self.seen = []

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            self.seen.append({loss.waits_for_gpu for loss in runner.model.losses.values()})

    watch = Watch()
    run(toy_cfg(epochs=1), watch)
    assert watch.seen == [{True}, {False}, {False}]
