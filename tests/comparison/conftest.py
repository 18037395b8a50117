import pytest
from mmengine.config import Config, ConfigDict

from det_losses.comparison import prepare
from det_losses.comparison.plan import Plan
from det_losses.comparison.variants import Variant
from det_losses.engine.run_time import RunTime
from det_losses.files import write_json
from det_losses.paths import configs_root


def named(label, weight=1.0, **parameters):
    """The variant that has one loss as the box loss, its config given."""
    config = {"type": label.partition("(")[0], "loss_weight": weight, **parameters}
    how = {"how": "published", "multiple": 1.0}
    source = f"source of {label}"
    return Variant(label, {"model.loss_bbox": config}, source, {"loss_bbox": label}, how)


@pytest.fixture
def variant():
    """Make a variant: ``variant("GIoULoss", 2.5, eps=1e-6)``."""
    return named


@pytest.fixture
def cfg():
    return Config(
        {
            "model": {"type": "RetinaNet", "loss_bbox": {"type": "L1Loss"}, "num_convs": 2},
            "randomness": {"seed": 5, "deterministic": False},
            "val_evaluator": {"type": "CocoMetric"},
        }
    )


@pytest.fixture(autouse=True)
def not_measured(monkeypatch):
    """A comparison takes a run to last a minute, alone or not, instead of measuring it."""
    monkeypatch.setattr(prepare, "measure_run", lambda *args: RunTime(10.0, 50.0, 0.0, 1))
    monkeypatch.setattr(prepare, "measure_jobs", lambda *args: [])


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """The quickstart on 160 images of 64 px: one epoch of 40 batches. Copy it before a change."""
    cfg = Config.fromfile(configs_root() / "quickstart" / "retinanet_shapes.py")
    root = str(tmp_path_factory.mktemp("data") / "shapes")
    for key in ("train_dataloader", "val_dataloader"):
        cfg[key].update(num_workers=0, persistent_workers=False)
        cfg[key].dataset.update(data_root=root, num_train=160, num_val=4, image_size=64)
    cfg.train_dataloader.batch_size = 4
    cfg.train_cfg = ConfigDict(by_epoch=True, max_epochs=1, val_interval=1)
    cfg.model.update(min_size=64, max_size=64)
    cfg.model.backbone.update(out_channels=16)
    return cfg


@pytest.fixture
def plan(cfg):
    variants = [named("SmoothL1Loss", beta=0.11), named("GIoULoss", 2.5)]
    return Plan.of(cfg, ["loss_bbox"], variants, [0, 1])


@pytest.fixture
def finish():
    """Make a run look finished: ``finish(run, AP=0.3, ...)``."""

    def make(run, **metrics):
        numbers = dict.fromkeys(("AP", "AP50", "AP75", "AP80", "AP90", "APs", "APm", "APl"), 0.5)
        name = run.variant.loss("loss_bbox")["type"]
        proof = {"loss": f"{name}()", "calls": 7, "gradient": True}
        record = {
            "status": "done",
            "metrics": {**numbers, **metrics},
            "train_seconds": 61.0,
            "seconds_per_iteration": 0.5,
            "peak_memory_mb": 512.25,
            "losses": {"loss_bbox": f"{name}()"},
            "proof": {"loss_bbox": proof},
        }
        run.work_dir.mkdir(parents=True, exist_ok=True)
        write_json(run.work_dir / "metrics.json", record)

    return make
