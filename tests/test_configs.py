"""Every shipped config builds, is short, says how it is run, and agrees with the weights' table."""

import ast
import inspect

import pytest
import torchvision
from mmengine.config import Config

from det_losses import build_loss
from det_losses.paths import configs_root
from det_losses.registry import MODELS

ROOT = configs_root()
FILES = sorted(p for p in ROOT.glob("*/*.py") if p.parent.name != "_base_")
IDS = [str(path.relative_to(ROOT)) for path in FILES]


def test_there_are_configs_of_each_detector():
    assert {"retinanet", "faster_rcnn", "fcos", "small", "quickstart"} <= {
        p.parent.name for p in FILES
    }


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_config_builds_without_weights_or_network(path):
    cfg = Config.fromfile(path)
    model = cfg.model.to_dict()
    model["num_classes"] = 3
    backbone = model["backbone"]
    if backbone["type"] == "EfficientNetLite0FPN":
        pytest.importorskip("timm")
        backbone["pretrained"] = False
    elif "weights" in backbone:
        known = torchvision.models.get_model_weights(backbone["name"])
        assert backbone["weights"] in known.__members__
        # The same small body for all: forty of them are built here.
        backbone.update(weights=None, norm="FrozenBN", name="resnet18")
    detector = MODELS.build(model)
    missing = set(type(detector).slots) - set(detector.losses)
    # FCOS: the branch for centre-ness or that for distributions, or both, may be absent.
    assert missing <= {"loss_centerness", "loss_dfl"}
    assert {slot for slot in model if slot.startswith("loss_")} <= set(detector.losses)
    for part in ("train_dataloader", "val_dataloader", "val_evaluator", "optim_wrapper"):
        assert part in cfg


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_config_is_short_and_says_how_it_is_run(path):
    source = path.read_text()
    doc = ast.get_docstring(ast.parse(source))
    body = source.split('"""', 2)[2].strip().splitlines()
    base = body.index("]") if "]" in body else 0  # a list of bases over several lines
    assert len(body) - base <= 10
    if path.stem.endswith("_base"):
        return
    assert "tools/" in doc or "make quickstart" in doc
    assert "not measured yet" in doc or "AP" in doc


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_weights_are_those_of_the_table(path):
    cfg = Config.fromfile(path)
    model = cfg.model
    slots = {key: value for key, value in model.items() if key.startswith("loss_")}
    for slot, config in slots.items():
        entries = cfg.loss_weights[model.type][slot]
        loss = build_loss(config.to_dict())
        nature = loss.space or loss.activation or loss.kind
        entry = dict(entries.get(config.type) or entries["fallback"][nature])
        entry.pop("source")
        known = inspect.signature(type(loss)).parameters
        assert set(entry) <= set(known)
        assert {key: config.get(key, known[key].default) for key in entry} == entry, slot
