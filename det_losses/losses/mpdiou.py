"""Minimum-point-distance IoU loss."""

from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def mpdiou_loss(pred: Tensor, target: Tensor, *, image_size: Tensor, eps: float = 1e-7) -> Tensor:
    """MPDIoU loss of each box, ``[N]``; see :class:`MPDIoULoss`."""
    pair = box_pair(pred, target, eps)
    top_left, bottom_right = mpdiou_penalties(pair, image_size)
    return 1 - pair.iou + top_left + bottom_right


def mpdiou_penalties(pair: BoxPair, image_size: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances of the top left and of the bottom right corners, each ``[N]``."""
    x1, y1, x2, y2 = pair.edge_offsets
    width, height = upcast(image_size).to(pair.iou.dtype).unbind(-1)
    diagonal2 = (width**2 + height**2).clamp(min=pair.eps)
    return (x1**2 + y1**2) / diagonal2, (x2**2 + y2**2) / diagonal2


@MODELS.register_module()
class MPDIoULoss(IoUFamilyLoss):
    r"""Overlap, and the distances of two corners relative to the image's diagonal.

    .. math:: L = 1 - IoU + \frac{d_1^2}{W^2 + H^2} + \frac{d_2^2}{W^2 + H^2}

    :math:`d_1` is the distance of the top left corners, :math:`d_2` that of the bottom right
    corners, W and H are width and height of the image. The value does not change if boxes and image
    are scaled together, but it does if only the boxes are scaled.

    Args:
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        For boxes with the same centre and aspect ratio but different sizes, whose CIoU penalties
        are 0.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. image_size: ``[N, 2]``, width and
        height of each box's image in pixels; this package's heads pass it. Unreduced: ``[N]``.

    Disjoint:
        The loss grows with the squared distance, slowly, because the image is large relative to
        the boxes.

    Raises:
        InputTypeError: ``image_size`` is missing.
        InputError: a negative eps, or mismatched shapes.

    Reference:
        Siliang Ma, Yong Xu: MPDIoU: A Loss for Efficient and Accurate Bounding Box Regression.
        arXiv 2307.07662, 2023.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> # half overlaps; image 30 x 40, diagonal 50; the bottom right corners are 10 apart
        >>> MPDIoULoss()(pred, target, image_size=torch.tensor([[30, 40]]))  # 1/2 + 100/2500
        tensor(0.5400)
    """

    paper = "Ma and Xu, MPDIoU, arXiv 2307.07662, 2023"
    inputs = ("image_size",)

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """Squared distances of the top left and of the bottom right corners."""
        return mpdiou_penalties(pair, pair.inputs["image_size"])
