"""Distance-IoU loss."""

from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS


def diou_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Distance-IoU loss of each box, ``[N]``; see :class:`DIoULoss`."""
    pair = box_pair(pred, target, eps)
    return 1 - pair.iou + diou_penalty(pair)


def diou_penalty(pair: BoxPair) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the enclosing box, ``[N]``."""
    return pair.center_distance2 / pair.hull_diagonal2


@MODELS.register_module()
class DIoULoss(IoUFamilyLoss):
    r"""Overlap, and the distance of the centres relative to the enclosing box.

    .. math:: L = 1 - IoU + \frac{\rho^2}{c^2}

    :math:`\rho` is the distance of the centres, :math:`c` the diagonal of the smallest enclosing
    box.

    Args:
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Like GIoU, with a centre term that also has a gradient when one box contains the other.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The loss stays below 2 and rises as the prediction moves straight away from a target of
        equal size. If it moves sideways, the loss may fall, because the enclosing box grows faster
        than the distance. The gradient moves the prediction towards the target and enlarges it.

    Raises:
        InputError: a negative eps, or mismatched shapes.

    Reference:
        Zhaohui Zheng, Ping Wang, Wei Liu, Jinze Li, Rongguang Ye, Dongwei Ren: Distance-IoU Loss:
        Faster and Better Learning for Bounding Box Regression. arXiv 1911.08287, 2019.

    Note:
        mmdetection computes areas in the dtype of its inputs: in float16 its loss of two
        overlapping 200 px boxes is 1. Here half precision is upcast to float32.

    Published:
        Faster R-CNN R50-FPN in arXiv 1911.08287: AP 38.09; IoU loss 37.93. torchvision's RetinaNet
        R50-FPN v2 (pull request 5984): AP 41.3, with GIoU 41.5.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[20.0, 0, 30, 10]])
        >>> # disjoint; centres 20 apart, enclosing box 30 x 10: 1 + 400 / 1000
        >>> DIoULoss()(pred, target)
        tensor(1.4000)
    """

    paper = "Zheng et al., Distance-IoU Loss, arXiv 1911.08287, 2019"

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """Distance of the centres."""
        return (diou_penalty(pair),)
