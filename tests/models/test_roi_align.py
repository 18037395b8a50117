"""RoIAlign equals torchvision's: values, gradients, boxes over the edges."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from det_losses.models.roi_align import RoIAlign


@pytest.mark.parametrize("levels", [["0"], ["0", "1", "2"]])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_values_and_gradients_equal_torchvisions(levels, dtype, close):
    torch.manual_seed(0)
    # two images of 96 x 64 (height x width), strides 4, 8, 16; "2" of one level is not pooled from
    sizes = {"0": (24, 16), "1": (12, 8), "2": (6, 4)}
    x = {name: torch.randn(2, 5, *size, dtype=dtype) for name, size in sizes.items()}
    x = {name: each.requires_grad_() for name, each in x.items()}
    corner, side = torch.rand(2, 40, 2) * 80 - 10, torch.rand(2, 40, 2) * 60
    boxes = [torch.cat([a, a + b], dim=1).to(dtype) for a, b in zip(corner, side, strict=True)]
    boxes[1] = torch.cat([boxes[1][:9], boxes[1][:1] * 0, boxes[1][:1] * 0 + 300]).contiguous()
    boxes[1][-3:, 2:] += 500  # as large as the image, and outside of it
    shapes, found = [(96, 64), (90, 64)], []
    for pool in (RoIAlign, MultiScaleRoIAlign):
        pooled = pool(levels, output_size=(3, 4), sampling_ratio=2)(x, boxes, shapes)
        weight = torch.linspace(-1, 1, pooled.numel(), dtype=dtype).view_as(pooled)
        inputs = [x[name] for name in levels]
        found.append([pooled, *torch.autograd.grad((pooled * weight).sum(), inputs)])
    assert found[0][0].shape == (51, 5, 3, 4)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=close, atol=close)


def test_without_boxes_nothing_is_pooled():
    pooled = RoIAlign(["0"], 2, 2)({"0": torch.rand(1, 3, 8, 8)}, [torch.zeros(0, 4)], [(32, 32)])
    assert pooled.shape == (0, 3, 2, 2)
