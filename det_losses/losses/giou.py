"""Generalized IoU loss."""

from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS


def giou_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Generalized IoU loss of each box, ``[N]``; see :class:`GIoULoss`."""
    pair = box_pair(pred, target, eps)
    return 1 - pair.iou + giou_penalty(pair)


def giou_penalty(pair: BoxPair) -> Tensor:
    """Empty fraction of the enclosing box, ``[N]``."""
    return pair.hull_waste


@MODELS.register_module()
class GIoULoss(IoUFamilyLoss):
    r"""Overlap, and the fraction of the enclosing box that neither box covers.

    .. math:: L = 1 - IoU + \frac{|C| - U}{|C|}

    C is the smallest enclosing box, U the area of the union.

    Args:
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        On decoded boxes in any detector, also if predictions do not overlap their targets at first.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The loss rises from 1 towards 2 with the empty fraction of the enclosing box. The gradient
        moves the prediction towards the target and enlarges it.

    Raises:
        InputError: a negative eps, or mismatched shapes.

    Reference:
        Hamid Rezatofighi, Nathan Tsoi, JunYoung Gwak, Amir Sadeghian, Ian Reid, Silvio Savarese:
        Generalized Intersection over Union: A Metric and A Loss for Bounding Box Regression.
        arXiv 1902.09630, 2019.

    Note:
        torchvision's loss can be 0 for an inverted prediction; here it is at least 1.

    Published:
        RetinaNet R50-FPN, COCO AP / AP75 in arXiv 2101.08158: 36.5 / 39.0; Smooth L1 35.9 / 38.4.
        mmdetection 3.3.0, Faster R-CNN R50-FPN, 12 epochs: AP 37.6 at weight 10; L1 37.4. Faster
        R-CNN R50-FPN in arXiv 1911.08287: AP 38.02; IoU loss 37.93. torchvision's RetinaNet R50-FPN
        v2 (pull request 5984): AP 41.5.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[30.0, 0, 40, 10]])
        >>> GIoULoss()(pred, target)  # disjoint; 200 of 400 square pixels are empty
        tensor(1.5000)
    """

    paper = "Rezatofighi et al., Generalized IoU, arXiv 1902.09630, 2019"

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """Empty fraction of the enclosing box."""
        return (giou_penalty(pair),)
