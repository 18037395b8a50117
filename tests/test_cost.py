import torch

from det_losses import build_loss
from det_losses.cost import BOXES, cost
from det_losses.losses import IoUFamilyLoss


class Kept(IoUFamilyLoss):
    """Plain autograd, because of an operation that the fast path lacks."""

    paper = "made up"

    def overlap(self, iou):
        return torch.cos(iou)


def test_the_fast_path_keeps_one_gradient_and_a_graph_keeps_many_tensors():
    gradient = BOXES * 4 * 4  # float32
    fast, plain = cost(build_loss("GIoULoss")), cost(Kept())
    assert fast.bytes == gradient
    assert plain.bytes > 5 * gradient  # IoU alone needs two sides, two areas, the union, ...
    assert fast.microseconds > 0


def test_losses_with_inputs_and_losses_of_deltas_are_measured():
    assert cost(build_loss("MPDIoULoss")).bytes == BOXES * 4 * 4
    assert cost(build_loss("SmoothL1Loss")).microseconds > 0
