"""Shape-IoU loss."""

import torch
from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS


def shape_iou_loss(
    pred: Tensor, target: Tensor, *, scale: float = 0.0, eps: float = 1e-7
) -> Tensor:
    """Shape-IoU loss of each box, ``[N]``; see :class:`ShapeIoULoss`."""
    check_argument("scale", scale, scale >= 0, "at least 0")
    pair = box_pair(pred, target, eps)
    distance, shape = shape_iou_penalties(pair, scale=scale)
    return 1 - pair.iou + distance + shape


def shape_iou_penalties(pair: BoxPair, *, scale: float) -> tuple[Tensor, Tensor]:
    """Weighted distance of the centres and weighted differences of the sizes, each ``[N]``."""
    side = pair.eps**0.5
    w, h = pair.wg.clamp(min=side) ** scale, pair.hg.clamp(min=side) ** scale
    ww, hh = 2 * w / (w + h), 2 * h / (w + h)
    distance = (hh * pair.dx**2 + ww * pair.dy**2) / pair.hull_diagonal2
    gap_w, gap_h = pair.size_gaps
    shape = (1 - torch.exp(-hh * gap_w)) ** 4 + (1 - torch.exp(-ww * gap_h)) ** 4
    return distance, shape / 2


@MODELS.register_module()
class ShapeIoULoss(IoUFamilyLoss):
    r"""Overlap, centre distance and shape, the latter two weighted by the shape of the target.

    .. math::
        L = 1 - IoU + \frac{h_h \Delta x^2 + w_w \Delta y^2}{c^2}
        + \frac{1}{2} \sum_{t = w, h} \left(1 - e^{-\omega_t}\right)^4

    with :math:`w_w = 2 w_g^s / (w_g^s + h_g^s)`, :math:`h_h = 2 h_g^s / (w_g^s + h_g^s)`,
    :math:`\omega_w = h_h |w - w_g| / \max(w, w_g)`, :math:`\omega_h = w_w |h - h_g| /
    \max(h, h_g)`, and c the diagonal of the smallest enclosing box. Errors along the short side of
    the target count more.

    Args:
        scale: the exponent s, at least 0; 0, the authors' default, weights both sides equally. The
            paper relates it to the scale of the objects in the dataset.
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        For elongated objects, with a scale above 0.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The distance of the centres moves the prediction towards the target, as in DIoU.

    Raises:
        InputError: a negative scale or eps, or mismatched shapes.

    Reference:
        Hao Zhang, Shuaijie Zhang: Shape-IoU: More Accurate Metric considering Bounding Box Shape
        and Scale. arXiv 2312.17663, 2023.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([[10.0, 0, 30, 10]])
        >>> # a third overlaps; centres 10 apart, enclosing box 30 x 10; hh = 2 * 10 / (20 + 10)
        >>> ShapeIoULoss(scale=1.0)(pred, target)  # 2/3 + 2/3 * 100/1000
        tensor(0.7333)
    """

    paper = "Zhang and Zhang, Shape-IoU, arXiv 2312.17663, 2023"

    def __init__(
        self,
        *,
        scale: float = 0.0,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("scale", scale, scale >= 0, "at least 0")
        self.scale = scale

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """Weighted distance of the centres and weighted differences of the sizes."""
        return shape_iou_penalties(pair, scale=self.scale)
