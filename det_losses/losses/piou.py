"""Powerful-IoU losses."""

import torch
from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS


def piou_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    """PIoU loss of each box, ``[N]``; see :class:`PIoULoss`."""
    pair = box_pair(pred, target, eps)
    return 1 - pair.iou + piou_penalty(pair)


def piouv2_loss(pred: Tensor, target: Tensor, *, lambda_: float = 1.3, eps: float = 1e-7) -> Tensor:
    """PIoU v2 loss of each box, ``[N]``; see :class:`PIoUv2Loss`."""
    check_argument("lambda_", lambda_, lambda_ > 0, "above 0")
    pair = box_pair(pred, target, eps)
    return (1 - pair.iou + piou_penalty(pair)) * piou_attention(pair, lambda_)


def edge_error(pair: BoxPair) -> Tensor:
    """Return P, the mean offset of the four edges relative to the target's size, ``[N]``."""
    x1, y1, x2, y2 = pair.edge_offsets
    wg, hg = (size.clamp(min=pair.eps**0.5) for size in (pair.wg, pair.hg))
    return ((x1.abs() + x2.abs()) / wg + (y1.abs() + y2.abs()) / hg) / 4


def piou_penalty(pair: BoxPair) -> Tensor:
    """Return 1 - exp(-P^2), ``[N]``."""
    return 1 - torch.exp(-(edge_error(pair) ** 2))


def piou_attention(pair: BoxPair, lambda_: float) -> Tensor:
    """Return u(lambda q) with q = exp(-P), ``[N]``."""
    x = lambda_ * torch.exp(-edge_error(pair))
    return 3 * x * torch.exp(-(x**2))


@MODELS.register_module()
class PIoULoss(IoUFamilyLoss):
    r"""Overlap, and the offsets of the four edges relative to the target's size.

    .. math::
        L = 1 - IoU + 1 - e^{-P^2}, \qquad
        P = \frac{1}{4} \left(\frac{d_{w1}}{w_g} + \frac{d_{w2}}{w_g} + \frac{d_{h1}}{h_g}
        + \frac{d_{h2}}{h_g}\right)

    :math:`d_{w1}, d_{w2}` are the distances of the left and of the right edges, :math:`d_{h1},
    d_{h2}` those of the top and of the bottom edges. P does not shrink as the prediction grows, so
    the penalty does not enlarge the prediction.

    Args:
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Instead of penalties divided by the size of the enclosing box, which can enlarge the
        prediction.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The gradient is largest at P = 0.7, a shift by 1.4 times the target's size along one axis,
        and almost 0 beyond several sizes.

    Raises:
        InputError: a negative eps, or mismatched shapes.

    Reference:
        Can Liu, Kaige Wang, Qing Li, Fazhan Zhao, Kun Zhao, Hongtu Ma: Powerful-IoU: More
        straightforward and faster bounding box regression loss with a nonmonotonic focusing
        mechanism. Neural Networks, doi 10.1016/j.neunet.2023.11.041, 2024. The formula is that of
        the authors' code.

    Note:
        The corners of an inverted prediction are not reordered, so its edge offsets are large.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> # half overlaps; the right edge is off by half the target's width
        >>> PIoULoss()(pred, target)  # 1/2 + 1 - exp(-1/64)
        tensor(0.5155)
    """

    paper = "Liu et al., Powerful-IoU, Neural Networks, doi 10.1016/j.neunet.2023.11.041, 2024"

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """The bounded penalty of the edge offsets."""
        return (piou_penalty(pair),)


@MODELS.register_module()
class PIoUv2Loss(PIoULoss):
    r"""PIoU times an attention factor that is largest for boxes of medium quality.

    .. math::
        L = u(\lambda q) L_{PIoU}, \qquad u(x) = 3 x e^{-x^2}, \qquad q = e^{-P}

    P is that of PIoULoss. The gradient flows through the attention too, as in the authors' code.

    Args:
        lambda_: position of the attention's maximum, above 0: :math:`q = 1 / (\sqrt{2} \lambda)`.
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        To give boxes of medium quality more weight than accurate and distant boxes.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The attention falls faster with distance than PIoU grows, so the gradient moves distant
        boxes further away from the target.

    Raises:
        InputError: a lambda_ that is not above 0, a negative eps, or mismatched shapes.

    Reference:
        Can Liu, Kaige Wang, Qing Li, Fazhan Zhao, Kun Zhao, Hongtu Ma: Powerful-IoU: More
        straightforward and faster bounding box regression loss with a nonmonotonic focusing
        mechanism. Neural Networks, doi 10.1016/j.neunet.2023.11.041, 2024. The formula, its
        constants and the gradient through the attention are those of the authors' code.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> # P = 1/8, so that lambda q = 1.1472 and u = 0.9230
        >>> PIoUv2Loss()(pred, target)
        tensor(0.4758)
    """

    monotone_in_distance = False

    def __init__(
        self,
        *,
        lambda_: float = 1.3,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("lambda_", lambda_, lambda_ > 0, "above 0")
        self.lambda_ = lambda_

    def factor(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """The attention of each box."""
        return piou_attention(pair, self.lambda_)
