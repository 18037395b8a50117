"""InterpIoU losses: the overlap of a box that stands between prediction and target."""

from torch import Tensor

from det_losses.boxes import BoxPair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS


@MODELS.register_module()
class InterpIoULoss(IoUFamilyLoss):
    r"""Overlap, and that of a box interpolated between prediction and target.

    .. math:: L = 1 - IoU(B, G) + 1 - IoU(B_{int}, G), \qquad B_{int} = (1 - \alpha) B + \alpha G

    The interpolated box overlaps the target where the prediction does not, and its IoU takes the
    place of geometric penalties. Its gradient in B has the factor :math:`1 - \alpha`.

    Args:
        alpha: how far the box is moved towards the target, in [0, 1). 0.99 is the value of a
            published use of the loss; that of the paper's own experiments is not verified.
        eps: the smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        For small objects, where the paper finds hand-made penalties to enlarge boxes.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        Attracts, weakly, as long as the interpolated box overlaps the target: with equal sizes up
        to :math:`1 / (1 - \alpha)` sizes away.

    Raises:
        ValueError: alpha outside [0, 1), a negative eps, or shapes that do not fit.

    Reference:
        Haoyuan Liu, Hiroshi Watanabe: InterpIoU: Rethinking Bounding Box Regression with
        Interpolation-Based IoU Optimization. arXiv 2507.12420, 2025.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[20.0, 0, 30, 10]]), torch.tensor([[0.0, 0, 10, 10]])
        >>> # disjoint, 20 apart; three quarters of the way on, at 5, a third overlaps
        >>> InterpIoULoss(alpha=0.75)(pred, target)
        tensor(1.6667)
    """

    paper = "Liu and Watanabe, InterpIoU, arXiv 2507.12420, 2025"

    def __init__(
        self,
        *,
        alpha: float = 0.99,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("alpha", alpha, 0 <= alpha < 1, "in [0, 1)")
        self.alpha = alpha

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """What the interpolated box lacks of the target."""
        return (1 - pair.interpolated(self.alpha).iou,)


@MODELS.register_module()
class DynamicInterpIoULoss(IoUFamilyLoss):
    r"""InterpIoU whose box stands the closer to the target the less the prediction overlaps it.

    .. math::
        L = 1 - IoU(B, G) + 1 - IoU(B_{int}, G), \qquad B_{int} = (1 - \alpha) B + \alpha G,
        \qquad \alpha = \min(\max(1 - IoU(B, G), \alpha_{min}), \alpha_{max})

    :math:`\alpha` is constant in the gradient.

    Args:
        alpha_min: the smallest alpha, that of boxes that overlap well, in [0, alpha_max].
        alpha_max: the largest alpha, that of disjoint boxes, below 1.
        eps: the smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        As InterpIoULoss, where objects of many sizes make one alpha a compromise.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        As InterpIoULoss with ``alpha_max``.

    Raises:
        ValueError: bounds that are no interval in [0, 1), a negative eps, or shapes that do not
            fit.

    Reference:
        Haoyuan Liu, Hiroshi Watanabe: InterpIoU: Rethinking Bounding Box Regression with
        Interpolation-Based IoU Optimization. arXiv 2507.12420, 2025. How alpha follows from IoU,
        its bounds and that it is constant in the gradient are those of an implementation that
        states to follow the authors' code; the paper's equation is not verified.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 40, 10]])
        >>> # IoU 1/4, so that alpha = 3/4: the interpolated box is 0.25 * 10 + 0.75 * 40 wide
        >>> DynamicInterpIoULoss()(pred, target)  # 3/4 + 1 - 32.5/40
        tensor(0.9375)
    """

    paper = "Liu and Watanabe, InterpIoU, arXiv 2507.12420, 2025"
    constant_in_gradient = ("the interpolation coefficient alpha",)
    monotone_in_distance = False

    def __init__(
        self,
        *,
        alpha_min: float = 0.6,
        alpha_max: float = 0.99,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        valid = 0 <= alpha_min <= alpha_max
        check_argument(
            "alpha_min", alpha_min, valid, f"in [0, alpha_max] with alpha_max = {alpha_max!r}"
        )
        check_argument("alpha_max", alpha_max, alpha_max < 1, "below 1")
        self.alpha_min = alpha_min
        self.alpha_max = alpha_max

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """What the interpolated box lacks of the target."""
        alpha = (1 - pair.iou).clamp(self.alpha_min, self.alpha_max).detach()
        return (1 - pair.interpolated(alpha).iou,)


def interp_iou_loss(
    pred: Tensor, target: Tensor, *, alpha: float = 0.99, eps: float = 1e-7
) -> Tensor:
    """InterpIoU loss of each box, ``[N]``; see :class:`InterpIoULoss`."""
    return InterpIoULoss(alpha=alpha, eps=eps).unreduced(pred, target)


def dynamic_interp_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    alpha_min: float = 0.6,
    alpha_max: float = 0.99,
    eps: float = 1e-7,
) -> Tensor:
    """Dynamic InterpIoU loss of each box, ``[N]``; see :class:`DynamicInterpIoULoss`."""
    loss = DynamicInterpIoULoss(alpha_min=alpha_min, alpha_max=alpha_max, eps=eps)
    return loss.unreduced(pred, target)
