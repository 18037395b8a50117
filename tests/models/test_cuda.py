"""Detectors on a GPU: the losses of the CPU, and few operations that wait for the GPU."""

import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from small_detectors import BACKBONE, batch, faster_rcnn, retinanet

import det_losses
from det_losses.models import FCOS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
PACKAGE = str(Path(det_losses.__file__).parent)


def fcos():
    return FCOS(BACKBONE, num_classes=3, anchor_sizes=[8, 16, 32], min_size=64)


def losses_and_waits(model, device):
    """Return the losses of one step, and the lines of this package that wait for the GPU."""
    model = deepcopy(model).to(device).train()
    images, targets = batch()
    images = [image.to(device) for image in images]
    targets = [{k: v.to(device) for k, v in target.items()} for target in targets]
    model(images, targets, mode="loss")  # constants are copied in the first step
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        found = model(images, targets, mode="loss")
        sum(found.values()).backward()
        torch.cuda.set_sync_debug_mode("default")
    waits = [
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "synchronizing" in str(warning.message) and warning.filename.startswith(PACKAGE)
    ]
    return {name: value.item() for name, value in found.items()}, waits


# The numbers of positives, and of the anchors or proposals used, must be known to select them.
@pytest.mark.parametrize(("make", "limit"), [(retinanet, 2), (fcos, 1), (faster_rcnn, 3)])
def test_losses_of_the_cpu_with_few_waits(make, limit):
    torch.manual_seed(0)
    model = make()
    expected, _ = losses_and_waits(model, "cpu")
    found, waits = losses_and_waits(model, "cuda")
    if make is not faster_rcnn:  # it samples with the device's random numbers
        assert found == pytest.approx(expected, rel=1e-3)
    assert found.keys() == expected.keys()
    assert len(waits) <= limit, waits
