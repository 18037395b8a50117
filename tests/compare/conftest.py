import pytest
from mmengine.config import Config

from det_losses.compare.plan import Plan
from det_losses.compare.weights import NamedLoss
from det_losses.files import write_json


def named(label, weight=1.0, **parameters):
    config = {"type": label.partition(":")[0], "loss_weight": weight, **parameters}
    return NamedLoss(label, config, f"source of {label}")


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
    losses = [named("SmoothL1Loss", beta=0.11), named("GIoULoss", 2.5)]
    return Plan.of(cfg, "loss_bbox", losses, [0, 1])


@pytest.fixture
def finish():
    """Make a run look finished: ``finish(run, AP=0.3, ...)``."""

    def make(run, **metrics):
        numbers = dict.fromkeys(("AP", "AP50", "AP75", "AP80", "AP90", "APs", "APm", "APl"), 0.5)
        record = {
            "status": "done",
            "metrics": {**numbers, **metrics},
            "train_seconds": 61.0,
            "peak_memory_mb": 512.25,
            "losses": {"loss_bbox": f"{run.loss.label}()"},
        }
        run.work_dir.mkdir(parents=True, exist_ok=True)
        write_json(run.work_dir / "metrics.json", record)

    return make


@pytest.fixture
def meta(plan):
    losses = {loss.label: {"config": loss.config, "source": loss.source} for loss in plan.losses}
    return {
        "component": "loss_bbox",
        "detector": "RetinaNet",
        "losses": losses,
        "seeds": plan.seeds,
        "hash": plan.hash,
        "config": "quickstart/x",
        "classes": ["cat", "dog"],
        "images": {"train": 10, "val": 5},
        "val_boxes": {
            "all": 7,
            "small": 0,
            "medium": 3,
            "large": 4,
            "by_class": {"cat": 7, "dog": 0},
        },
        "versions": {"torch": "2.15"},
        "hardware": {"gpus": [], "cpu": "some CPU", "threads": 2, "memory": "peak memory is RSS"},
        "command": "compare x --losses A B",
        "started": "s",
        "finished": "f",
    }
