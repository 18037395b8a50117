"""Two ranks with half of each batch train the weights of one process with the whole batch."""

import copy

import pytest
import torch
from ranks import on_ranks
from torch.nn.parallel import DistributedDataParallel

from det_losses.models import FCOS, FasterRCNN, RetinaNet

ALL = 10**6  # of the anchors and proposals, because each image's sample is drawn at random
BACKBONE = dict(type="SmallResNetFPN", widths=(4, 4, 8, 8), out_channels=8, extra_levels=None)
LEVELS = {"sizes": [[8], [16]], "aspect_ratios": [1.0]}
SETTINGS = {
    "RetinaNet": {},
    "RetinaNet, batch": dict(
        normalizer="batch", head_norm="GN", loss_cls="GHMCLoss", loss_bbox="FocalEIoULoss"
    ),
    "RetinaNet, WIoU": dict(loss_bbox="WIoUv3Loss(momentum=0.5)"),
    "FCOS": {},
    "FCOS, GFL": dict(
        box_weight="score", loss_cls="QualityFocalLoss", loss_dfl="DistributionFocalLoss"
    ),
    "FasterRCNN": dict(
        loss_bbox="DynamicSmoothL1Loss(interval=1)",
        rpn_batch_size_per_image=ALL,
        box_batch_size_per_image=ALL,
    ),
}
OF_CLASS = {
    "RetinaNet": (RetinaNet, dict(anchors=LEVELS, num_convs=1)),
    "FCOS": (FCOS, dict(anchor_sizes=[8, 16], num_convs=1)),
    "FasterRCNN": (FasterRCNN, dict(anchors=LEVELS, representation_size=16, roi_size=3)),
}


def build(name):
    cls, sizes = OF_CLASS[name.split(",")[0]]
    return cls(BACKBONE, 3, min_size=64, max_size=64, **sizes, **SETTINGS[name])


def batch(step):
    """Four images of one size with 0 to 3 boxes; in the last step, only the last has a box."""
    generator = torch.Generator().manual_seed(step)
    images, targets = [], []
    for number in range(4):
        images.append(torch.rand(3, 64, 64, generator=generator))
        count = number if step < 2 else number // 3
        corner, size = 40 * torch.rand(2, count, 2, generator=generator)
        boxes = torch.cat([corner, corner + 4 + size], dim=1)
        labels = torch.randint(3, (count,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels})
    return images, targets


def train(name, rank=None):
    """Logged losses of three steps, and weights and buffers at the end."""
    torch.manual_seed(0)
    model = build(name).double().train()
    wrapped = model if rank is None else DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    logged = []
    for step in range(3):
        images, targets = batch(step)
        if rank is not None:
            images, targets = images[rank::2], targets[rank::2]
        images = [image.double() for image in images]
        loss, values = model.parse_losses(wrapped(images, copy.deepcopy(targets), mode="loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        logged.append({key: value.detach() for key, value in values.items()})
    return logged, model.state_dict()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return on_ranks(lambda rank: {name: train(name, rank) for name in SETTINGS}, folder)


@pytest.mark.parametrize("name", SETTINGS)
def test_two_ranks_are_one_process(name, two_ranks):
    logged, weights = train(name)
    for each in two_ranks:
        torch.testing.assert_close(each[name][0], logged, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(each[name][1], weights, rtol=1e-6, atol=1e-9)
