"""What a config can turn on: TensorBoard, mixed precision, averaged weights (test_resume)."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS

from det_losses.engine import build_runner


def test_tensorboard(toy_cfg):
    pytest.importorskip("tensorboard", reason="the extra [tensorboard] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    backends = [dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
    cfg = toy_cfg(epochs=2)
    cfg["visualizer"]["vis_backends"] = backends
    runner = build_runner(cfg)
    runner.train()
    (events,) = Path(runner.log_dir).rglob("events.out.tfevents*")
    accumulator = EventAccumulator(str(events)).Reload()
    tags = set(accumulator.Tags()["scalars"])
    assert {"loss", "loss_cls", "loss_bbox", "lr", "AP", "AP50", "AP/cat"} <= tags
    assert len(accumulator.Scalars("loss_bbox")) == 6  # 2 epochs of 3 iterations
    assert [event.step for event in accumulator.Scalars("AP")] == [1, 2]


def test_evaluation_in_half_precision(toy_cfg, record):
    runner = build_runner(toy_cfg(epochs=1, val_cfg=dict(fp16=True)))
    found = []
    runner.model.register_forward_hook(
        lambda model, args, output: None if model.training else found.extend(output)
    )
    runner.train()
    # mmengine takes bfloat16 on a CPU and float16 on a GPU.
    assert {each["boxes"].dtype for each in found} <= {torch.bfloat16, torch.float16}
    assert record(runner)["metrics"]["AP"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU's autocast is tested")
def test_training_under_autocast(toy_cfg, record):
    class CpuAutocast(OPTIM_WRAPPERS.get("OptimWrapper")):
        def optim_context(self, model):
            return torch.autocast("cpu", dtype=torch.bfloat16)

    cfg = toy_cfg(epochs=2)
    runner = build_runner(cfg)
    optimizer = torch.optim.SGD(runner.model.parameters(), lr=0.02)
    runner.optim_wrapper = CpuAutocast(optimizer)
    dtypes = set()
    runner.model.kind.register_forward_hook(
        lambda module, args, output: dtypes.add((module.training, output.dtype))
    )
    runner.train()
    assert dtypes == {(True, torch.bfloat16), (False, torch.float32)}
    assert runner.model.box.weight.dtype == torch.float32
    assert record(runner)["metrics"]["AP"] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_mixed_precision_on_a_gpu(toy_cfg, record):
    cfg = toy_cfg(epochs=2)
    cfg["optim_wrapper"]["type"] = "AmpOptimWrapper"
    runner = build_runner(cfg)
    runner.train()
    state = torch.load(Path(runner.work_dir) / "epoch_2.pth", weights_only=True)
    assert "loss_scaler" in state["optimizer"]
    got = record(runner)
    assert got["metrics"]["AP"] > 0
    assert got["peak_memory_kind"] == "cuda"
