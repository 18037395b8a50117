"""A toy for the engine: six images of one coloured box each, and a model of 24 weights."""

import copy
import json
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from det_losses.registry import DATASETS, FUNCTIONS, MODELS

RUNTIME = Path(__file__).resolve().parents[2] / "configs" / "_base_" / "runtime.py"
COLOURS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


@DATASETS.register_module()
class ToyBoxes(Dataset):
    """Image i: class i % 2, its box the larger the larger i; those in ``infinite`` have no end."""

    def __init__(self, classes=("cat", "dog"), test_mode=False, infinite=(), length=6, dim=False):
        self.metainfo = {
            "classes": tuple(classes),
            "category_ids": tuple(range(17, 17 + len(classes))),
        }
        self.test_mode, self.infinite, self.length = test_mode, infinite, length
        self.dim = dim  # random brightness, from the global generator
        self.epochs = []

    def set_epoch(self, epoch, seed):
        self.epochs.append((epoch, seed))

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        image_id, label, size = 100 + index, index % 2, 20.0 + 4 * index
        image = torch.tensor(COLOURS[label])[:, None, None] * torch.full((3, 8, 8), size / 40)
        if self.dim:
            image = image * torch.rand(1)
        box = [4.0, 8.0, 4 + size, 8 + size / 2]
        target = {
            "boxes": torch.tensor([box]),
            "labels": torch.tensor([label]),
            "image_id": image_id,
        }
        if image_id in self.infinite:
            target["boxes"] = target["boxes"] * float("inf")
        if self.test_mode:
            annotation = dict(
                image_id=image_id,
                category_id=17 + label,
                bbox=[4.0, 8.0, size, size / 2],
                area=size * size / 2,
                iscrowd=0,
            )
            entry = dict(id=image_id, width=64, height=64, file_name=f"{image_id}.png")
            target["coco"] = {"image": entry, "annotations": [annotation]}
        return image, target


class ToyLoss(nn.Module):
    def __init__(self, beta=1.0, loss_weight=1.0):
        super().__init__()
        self.beta, self.loss_weight = beta, loss_weight

    def forward(self, pred, target):
        return self.loss_weight * nn.functional.smooth_l1_loss(pred.float(), target, beta=self.beta)

    def extra_repr(self):
        return f"beta={self.beta}, loss_weight={self.loss_weight}"


@MODELS.register_module()
class ToyDetector(BaseModel):
    """Box and class of the one object from the mean colour; draws random numbers in training."""

    def __init__(self, num_classes=None, class_to_channel=None, loss_weight=1.0, noise=0.01):
        super().__init__()
        self.num_classes, self.class_to_channel, self.noise = num_classes, class_to_channel, noise
        self.box, self.kind = nn.Linear(3, 4), nn.Linear(3, num_classes)
        # A box of middle size to begin with, so that some detections hit from the start.
        nn.init.constant_(self.box.weight, 0)
        self.box.bias.data = torch.tensor([4.0, 8.0, 34.0, 23.0]) / 20
        self.losses = nn.ModuleDict(
            {"loss_cls": nn.CrossEntropyLoss(), "loss_bbox": ToyLoss(0.5, loss_weight)}
        )

    def forward(self, images, targets, mode="loss"):
        colour = torch.stack(images).mean((2, 3))
        if mode == "loss":
            colour = colour + self.noise * torch.randn_like(colour)
        boxes, logits = self.box(colour) * 20, self.kind(colour)
        if mode == "loss":
            wanted = torch.cat([target["boxes"] for target in targets])
            labels = torch.cat([target["labels"] for target in targets])
            return {
                "loss_cls": self.losses["loss_cls"](logits, labels),
                "loss_bbox": self.losses["loss_bbox"](boxes, wanted),
            }
        scores, labels = logits.softmax(-1).max(-1)
        return [
            dict(boxes=box[None], scores=score[None], labels=label[None], image_id=t["image_id"])
            for box, score, label, t in zip(boxes, scores, labels, targets, strict=True)
        ]


@FUNCTIONS.register_module()
def toy_collate(samples):
    return {"images": [image for image, _ in samples], "targets": [target for _, target in samples]}


def _loader(test_mode):
    return dict(
        dataset=dict(type="ToyBoxes", test_mode=test_mode),
        sampler=dict(type="DefaultSampler", shuffle=not test_mode),
        collate_fn=dict(type="toy_collate"),
        batch_size=2,
        num_workers=0,
    )


def make_cfg(folder, epochs=4, **changes):
    """A config dict with the shipped runtime."""
    runtime = runpy.run_path(str(RUNTIME))
    cfg = copy.deepcopy({key: runtime[key] for key in runtime if not key.startswith("__")})
    cfg.update(
        work_dir=str(folder),
        model=dict(type="ToyDetector", num_classes=None),
        train_dataloader=_loader(test_mode=False),
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.02, momentum=0.9)),
        param_scheduler=[dict(type="LinearLR", start_factor=0.5, end=4, by_epoch=False)],
        val_dataloader=_loader(test_mode=True),
        val_cfg=dict(),
        val_evaluator=dict(type="CocoMetric"),
    )
    cfg["default_hooks"]["logger"]["interval"] = 1
    cfg.update(changes)
    return cfg


@pytest.fixture(scope="session")
def toy_cfg_in():
    """Factory of a config: ``toy_cfg_in(folder, key=value)``."""
    return make_cfg


@pytest.fixture
def toy_cfg(tmp_path):
    """Factory of a config in its own folder: ``toy_cfg("name", key=value)``."""
    return lambda name="run", *args, **changes: make_cfg(tmp_path / name, *args, **changes)


@pytest.fixture
def record():
    """Read a run's metrics.json."""
    return lambda runner: json.loads((Path(runner.work_dir) / "metrics.json").read_text())
