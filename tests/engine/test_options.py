"""What a config can turn on: TensorBoard, mixed precision, averaged weights (test_resume)."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from det_losses.engine import build_runner, config
from det_losses.engine.config import apply_options, use_auto_scale_lr, use_tensorboard
from det_losses.engine.settings import check_settings
from det_losses.errors import InputError


def test_tensorboard(toy_cfg):
    pytest.importorskip("tensorboard", reason="the extra [tensorboard] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cfg = Config(toy_cfg(epochs=2))
    use_tensorboard(cfg)
    use_tensorboard(cfg)  # not twice
    runner = build_runner(cfg)
    runner.train()
    (events,) = Path(runner.log_dir).rglob("events.out.tfevents*")
    accumulator = EventAccumulator(str(events)).Reload()
    tags = set(accumulator.Tags()["scalars"])
    assert {"loss", "loss_cls", "loss_bbox", "lr", "AP", "AP50", "AP/cat"} <= tags
    assert len(accumulator.Scalars("loss_bbox")) == 6  # 2 epochs of 3 iterations
    assert [event.step for event in accumulator.Scalars("AP")] == [1, 2]


def test_auto_scale_lr(toy_cfg):
    """The runs of tests/engine/test_distributed.py are scaled."""
    given = Config(toy_cfg(auto_scale_lr=dict(enable=False, base_batch_size=16)))
    use_auto_scale_lr(given)
    assert given.auto_scale_lr.enable
    with pytest.raises(InputError, match=r"no auto_scale_lr.base_batch_size, .* set it with --cfg"):
        use_auto_scale_lr(Config(toy_cfg()))


def test_tensorboard_that_is_not_installed(toy_cfg, monkeypatch):
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'det-losses\[tensorboard\]'"):
        use_tensorboard(Config(toy_cfg()))


@pytest.mark.parametrize(
    "backend",
    [
        "dict(type='WandbVisBackend',init_kwargs=dict(project='losses'))",
        "dict(type='MLflowVisBackend',tracking_uri='sqlite:///mlflow.db',exp_name='losses')",
    ],
)
def test_other_trackers_by_an_option(toy_cfg, backend):
    """As docs/report.md writes it; mmengine imports their packages when training starts."""
    cfg = Config(toy_cfg())
    apply_options(cfg, [f"visualizer.vis_backends=[dict(type='LocalVisBackend'),{backend}]"])
    check_settings(cfg)
    assert cfg.visualizer.vis_backends[1].type in backend


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


def test_training_in_bfloat16(toy_cfg, record):
    cfg = toy_cfg(epochs=2)
    cfg["optim_wrapper"]["type"] = "BFloat16OptimWrapper"
    runner = build_runner(cfg)
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
