import pytest
from mmengine.config import Config

from det_losses.compare.plan import Plan
from det_losses.compare.variants import Variant
from det_losses.compare.weights import NamedLoss
from det_losses.files import write_json


def named(label, weight=1.0, **parameters):
    config = {"type": label.partition(":")[0], "loss_weight": weight, **parameters}
    return Variant.of_loss("loss_bbox", NamedLoss(label, config, f"source of {label}"))


@pytest.fixture
def cfg():
    return Config(
        {
            "model": {"type": "RetinaNet", "loss_bbox": {"type": "L1Loss"}, "num_convs": 2},
            "randomness": {"seed": 5, "deterministic": False},
            "val_evaluator": {"type": "CocoMetric"},
        }
    )


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
        proof = {"loss": f"{name}()", "hash": "0", "calls": 7, "probe": {"start": 0, "end": 1e-7}}
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
