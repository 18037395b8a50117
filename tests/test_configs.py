"""Every shipped config is a whole experiment, is short, and its model builds."""

import pytest
import torchvision
from mmengine.config import Config

from det_losses.comparison.trainer import build_trainer
from det_losses.models.published import complete, table_of
from det_losses.models.slots import build_slot_losses
from det_losses.paths import configs_root
from det_losses.registry import MODELS, find

ROOT = configs_root()
SHIPPED = sorted(p for p in ROOT.glob("*/*.py") if p.parent.name != "_base_")
OTHER_TRAINERS = ("transformers", "yolo")  # folders of configs with models of other packages
FILES = [path for path in SHIPPED if path.parent.name not in OTHER_TRAINERS]
FOREIGN = [path for path in SHIPPED if path.parent.name in OTHER_TRAINERS]
IDS = [str(path.relative_to(ROOT)) for path in FILES]
# Whole detectors are built of one config a model; the others differ from them in the losses.
MODEL_CONFIGS = [
    "faster_rcnn/faster_rcnn_base.py",
    "fcos/fcos_base.py",
    "fcos/gfl.py",
    "quickstart/fcos_shapes.py",
    "quickstart/retinanet_shapes.py",
    "retinanet/retinanet_base.py",
    "small/faster_rcnn_lite0.py",
    "small/fcos_lite0.py",
    "small/retinanet_lite0.py",
]
BOX_LOSSES = """L1Loss MSELoss SmoothL1Loss HuberLoss FocalL1Loss IoULoss GIoULoss DIoULoss CIoULoss
    EIoULoss FocalEIoULoss""".split()
CLASS_LOSSES = ["CrossEntropyLoss", "BinaryCrossEntropyLoss", "FocalLoss"]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_config_is_a_short_experiment_whose_losses_fit(path):
    cfg = Config.fromfile(path)
    for part in ("train_dataloader", "val_dataloader", "val_evaluator", "optim_wrapper"):
        assert part in cfg
    model = cfg.model.to_dict()
    cls = find(MODELS, model["type"])
    given = {slot: model.get(slot) for slot in cls.slots}
    assert {key for key in model if key.startswith("loss_")} <= given.keys()
    losses, _ = build_slot_losses(cls.__name__, cls.slots, given, 3, table_of(model))
    for slot, loss in losses.items():
        if given[slot] is not None:
            config, _ = complete(table_of(model), slot, given[slot])
            assert {key: loss.params()[key] for key in config if key != "type"} == {
                key: value for key, value in config.items() if key != "type"
            }
    assert lines_over_base(path) <= 10


def lines_over_base(path):
    body = path.read_text().split('"""', 2)[2].strip().splitlines()
    return len(body) - (body.index("]") if "]" in body else 0)  # a list over several lines


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: path.stem)
def test_config_of_another_trainer(path):
    cfg = Config.fromfile(path)
    assert {"train_dataloader", "val_dataloader", "val_evaluator"} <= set(cfg)
    assert build_trainer(cfg).slots
    assert build_trainer(cfg).description.startswith(path.stem.partition("_")[0])
    assert lines_over_base(path) <= 10


@pytest.mark.parametrize("name", MODEL_CONFIGS)
def test_model_builds_without_weights_or_network(name):
    model = Config.fromfile(ROOT / name).model.to_dict()
    model["num_classes"] = 3
    backbone = model["backbone"]
    if backbone["type"] == "EfficientNetLite0FPN":
        pytest.importorskip("timm")
        backbone.update(pretrained=False, frozen_stages=0)
    elif "weights" in backbone:
        known = torchvision.models.get_model_weights(backbone["name"])
        assert backbone["weights"] in known.__members__
        backbone.update(weights=None, norm="FrozenBN", name="resnet18", out_channels=32)
        model |= {"representation_size": 64} if model["type"] == "FasterRCNN" else {}
    detector = MODELS.build(model)
    missing = set(type(detector).slots) - set(detector.losses)
    # FCOS: the branch for centerness or that for distributions, or both, may be absent.
    assert missing <= {"loss_centerness", "loss_dfl"}
    assert {slot for slot in model if slot.startswith("loss_")} <= set(detector.losses)


def test_each_loss_of_the_first_table_has_a_config_for_two_stage_and_one_stage():
    # RetinaNet's base has the focal loss, Faster R-CNN's the cross entropy.
    for folder in ("retinanet", "faster_rcnn"):
        files = [Config.fromfile(p).model for p in FILES if p.parent.name == folder]
        for slot, names in (("loss_bbox", BOX_LOSSES), ("loss_cls", CLASS_LOSSES)):
            found = [model[slot] for model in files]
            assert set(names) <= {x if isinstance(x, str) else x["type"] for x in found}
