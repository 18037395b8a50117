"""Gaussian combined distance loss."""

import torch
from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import PairLoss
from det_losses.registry import MODELS
from det_losses.tensors import safe_sqrt


def gcd_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Gaussian combined distance loss of each box, ``[N]``; see :class:`GCDLoss`."""
    check_argument("eps", eps, eps > 0, "above 0")
    return _of_pair(box_pair(pred, target, eps))


def _of_pair(pair: BoxPair) -> Tensor:
    side = pair.eps**0.5
    w, h, wg, hg = (size.clamp(min=side) for size in (pair.w, pair.h, pair.wg, pair.hg))
    squared = (pair.dx**2 + pair.dw2 / 4) * (w**-2 + wg**-2) / 2
    squared = squared + (pair.dy**2 + pair.dh2 / 4) * (h**-2 + hg**-2) / 2
    return 1 - torch.exp(-safe_sqrt(squared))


@MODELS.register_module()
class GCDLoss(PairLoss):
    r"""Distance of the boxes as Gaussian distributions, relative to the sizes of both boxes.

    .. math::
        L = 1 - e^{-\sqrt{D^2}}, \qquad
        D^2 = \frac{1}{2} \left[
        \left(d_x^2 + \frac{(w - w_g)^2}{4}\right)
        \left(\frac{1}{w^2} + \frac{1}{w_g^2}\right) +
        \left(d_y^2 + \frac{(h - h_g)^2}{4}\right)
        \left(\frac{1}{h^2} + \frac{1}{h_g^2}\right)\right]

    :math:`d_x, d_y` are the offsets of the centres.

    Args:
        eps: smallest area in a denominator: sides are clamped at its square root.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Tiny objects, like NWD, but without a constant in pixels: the value does not change if both
        boxes are scaled.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        There is a gradient towards the target at any distance; it falls as :math:`e^{-\sqrt{D^2}}`.
        A prediction without width or height, or an inverted one, has a loss close to 1 and almost
        no gradient.

    Raises:
        InputError: an eps that is not above 0, or mismatched shapes.

    Reference:
        Ziqian Guan, Xieyi Fu, Pengjun Huang, Hengyuan Zhang, Hubin Du, Yongtao Liu, Yinglin Wang,
        Qang Ma: Gaussian Combined Distance: A Generic Metric for Object Detection. arXiv
        2510.27649, 2025. The formula follows the authors' code (MArKkwanGuan/mmdet-GCD) with its
        default mode "exp".

    Note:
        The gradient of identical boxes is 0; the plain square root would give NaN. The loss has no
        IoU term and cannot be wrapped.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> GCDLoss()(pred, target)  # D^2 = (25 + 25) (1/100 + 1/400) / 2 = 0.3125
        tensor(0.4282)
    """

    paper = "Guan et al., Gaussian Combined Distance, arXiv 2510.27649, 2025"

    def __init__(
        self, *, eps: float = 1e-7, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("eps", eps, eps > 0, "above 0")

    def of_pair(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each box, ``[N]``."""
        return _of_pair(pair)
