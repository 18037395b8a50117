"""Minimum-point-distance IoU loss."""

from torch import Tensor

from det_losses.boxes import BoxPair
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS
from det_losses.tensors import upcast


@MODELS.register_module()
class MPDIoULoss(IoUFamilyLoss):
    r"""Overlap, and the distances of two corners as parts of the image's diagonal.

    .. math:: L = 1 - IoU + \frac{d_1^2}{W^2 + H^2} + \frac{d_2^2}{W^2 + H^2}

    :math:`d_1` is the distance of the two top left corners, :math:`d_2` that of the bottom right
    ones, W and H are the sizes of the image that the boxes lie in. So the scale of boxes and image
    together does not matter, but that of the boxes alone does.

    Args:
        eps: the smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        For boxes of one aspect ratio but different size, which the centres and CIoU's aspect term
        do not tell apart.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels; the input ``image_size``: ``[N, 2]``,
        width and height of each box's image, pixels; the heads of this package give it.
        Unreduced: ``[N]``.

    Disjoint:
        Attracts with the square of the distance; weakly, because the image is large beside a box.

    Raises:
        TypeError: ``image_size`` is missing.
        ValueError: a negative eps, or shapes that do not fit.

    Reference:
        Siliang Ma, Yong Xu: MPDIoU: A Loss for Efficient and Accurate Bounding Box Regression.
        arXiv 2307.07662, 2023.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> # half overlaps; of 30 x 40, diagonal 50, the bottom right corners are 10 apart
        >>> MPDIoULoss()(pred, target, image_size=torch.tensor([[30, 40]]))  # 1/2 + 100/2500
        tensor(0.5400)
    """

    paper = "Ma and Xu, MPDIoU, arXiv 2307.07662, 2023"
    inputs = ("image_size",)

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """The squared distances of the top left and of the bottom right corners."""
        x1, y1, x2, y2 = pair.edge_offsets
        width, height = upcast(pair.inputs["image_size"]).to(pair.pred.dtype).unbind(-1)
        diagonal2 = (width**2 + height**2).clamp(min=pair.eps)
        return (x1**2 + y1**2) / diagonal2, (x2**2 + y2**2) / diagonal2


def mpdiou_loss(pred: Tensor, target: Tensor, *, image_size: Tensor, eps: float = 1e-7) -> Tensor:
    """MPDIoU loss of each box, ``[N]``; see :class:`MPDIoULoss`."""
    return MPDIoULoss(eps=eps).unreduced(pred, target, image_size=image_size)
