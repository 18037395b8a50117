"""Small detectors, and a batch of two images whose three boxes identify image and label."""

import torch

from det_losses.losses import Loss
from det_losses.models import FasterRCNN, RetinaNet
from det_losses.models.slots import INPUTS

BACKBONE = {"type": "SmallResNetFPN", "out_channels": 16, "extra_levels": None}
LEVELS = {"sizes": [[16], [32], [64]], "aspect_ratios": [1.0]}
# Images of two sizes; the network scales the shorter side to 64.
IMAGES = [(64, 96), (80, 64)]
SIZES = torch.tensor([[96.0, 64.0], [64.0, 80.0]])
BOXES = [[[8.0, 8, 40, 30], [50, 20, 90, 60]], [[10.0, 12, 30, 60]]]


def retinanet(**kwargs):
    return RetinaNet(BACKBONE, num_classes=3, **{"anchors": LEVELS, **kwargs})


def faster_rcnn(**kwargs):
    sizes = dict(anchors=LEVELS, representation_size=32, roi_size=3)
    return FasterRCNN(BACKBONE, num_classes=3, **{**sizes, **kwargs})


class AllInputs(Loss):
    """A box loss that requires all inputs and stores them."""

    paper = "made up"
    kind, space, inputs = "box", "decoded", INPUTS["box"]

    def unreduced_shape(self, pred):
        return pred.shape[:-1]

    def unreduced(self, pred, target, weight=None, **inputs):
        self.got = dict(pred=pred, target=target, **inputs)
        return pred.sum(-1) * 0


class WithQuality(Loss):
    """A sigmoid loss that stores its inputs."""

    paper = "made up"
    kind, activation, inputs = "classification", "sigmoid", ("quality",)

    def unreduced(self, pred, target, weight=None, *, quality):
        self.got = dict(labels=target, quality=quality)
        return pred * 0


def batch():
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=generator) for size in IMAGES]
    targets = [
        {"boxes": torch.tensor(boxes), "labels": torch.arange(len(boxes))} for boxes in BOXES
    ]
    return images, targets
