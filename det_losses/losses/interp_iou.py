"""InterpIoU losses: overlap of a box interpolated between prediction and target."""

from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS


def interp_iou_loss(
    pred: Tensor, target: Tensor, *, alpha: float = 0.98, eps: float = 1e-7
) -> Tensor:
    """InterpIoU loss of each box, ``[N]``; see :class:`InterpIoULoss`."""
    _check(alpha)
    pair = box_pair(pred, target, eps)
    return 1 - pair.iou + interpolated_penalty(pair, alpha)


def dynamic_interp_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    alpha_min: float = 0.6,
    alpha_max: float = 0.99,
    eps: float = 1e-7,
) -> Tensor:
    """Dynamic InterpIoU loss of each box, ``[N]``; see :class:`DynamicInterpIoULoss`."""
    _check_bounds(alpha_min, alpha_max)
    pair = box_pair(pred, target, eps)
    return 1 - pair.iou + interpolated_penalty(pair, dynamic_alpha(pair, alpha_min, alpha_max))


def interpolated_penalty(pair: BoxPair, alpha: float | Tensor) -> Tensor:
    """One minus the IoU of the interpolated box and the target, ``[N]``."""
    return 1 - pair.interpolated(alpha).iou


def dynamic_alpha(pair: BoxPair, alpha_min: float, alpha_max: float) -> Tensor:
    """Interpolation coefficient of each box, ``[N]``, constant in the gradient."""
    return (1 - pair.iou).clamp(alpha_min, alpha_max).detach()


@MODELS.register_module()
class InterpIoULoss(IoUFamilyLoss):
    r"""Overlap of the prediction, and of a box interpolated between prediction and target.

    .. math:: L = 1 - IoU(B, G) + 1 - IoU(B_{int}, G), \qquad B_{int} = (1 - \alpha) B + \alpha G

    The interpolated box can overlap the target when the prediction does not. Its IoU replaces
    geometric penalties. Its gradient with respect to B has the factor :math:`1 - \alpha`.

    Args:
        alpha: interpolation coefficient, in [0, 1); 0.98 as in the authors' code.
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        For small objects. The paper argues that geometric penalties enlarge boxes.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        There is a small gradient towards the target as long as the interpolated box overlaps it:
        for boxes of equal size, up to a distance of :math:`1 / (1 - \alpha)` box sizes.

    Raises:
        InputError: alpha outside [0, 1), a negative eps, or mismatched shapes.

    Reference:
        Haoyuan Liu, Hiroshi Watanabe: InterpIoU: Rethinking Bounding Box Regression with
        Interpolation-Based IoU Optimization. arXiv 2507.12420, 2025. The value of alpha is taken
        from the first author's code (NuayHL/interpiou, NuayHL/Ultralytics).

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[20.0, 0, 30, 10]]), torch.tensor([[0.0, 0, 10, 10]])
        >>> # disjoint, 20 apart; interpolated by three quarters it is 5 apart: a third overlaps
        >>> InterpIoULoss(alpha=0.75)(pred, target)
        tensor(1.6667)
    """

    paper = "Liu and Watanabe, InterpIoU, arXiv 2507.12420, 2025"

    def __init__(
        self,
        *,
        alpha: float = 0.98,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        _check(alpha)
        self.alpha = alpha

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """One minus the IoU of the interpolated box."""
        return (interpolated_penalty(pair, self.alpha),)


@MODELS.register_module()
class DynamicInterpIoULoss(IoUFamilyLoss):
    r"""InterpIoU whose interpolation coefficient grows as the overlap falls.

    .. math::
        L = 1 - IoU(B, G) + 1 - IoU(B_{int}, G), \qquad B_{int} = (1 - \alpha) B + \alpha G,
        \qquad \alpha = \min(\max(1 - IoU(B, G), \alpha_{min}), \alpha_{max})

    :math:`\alpha` is constant in the gradient.

    Args:
        alpha_min: smallest alpha, of boxes that overlap well, in [0, alpha_max].
        alpha_max: largest alpha, of disjoint boxes, below 1.
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Like InterpIoULoss, when one alpha does not suit objects of all sizes.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        As InterpIoULoss with ``alpha_max``. Where the overlap is small, the loss may fall as a box
        moves away, because alpha grows and brings the interpolated box closer to the target.

    Raises:
        InputError: the bounds are not an interval in [0, 1), a negative eps, or mismatched shapes.

    Reference:
        Haoyuan Liu, Hiroshi Watanabe: InterpIoU: Rethinking Bounding Box Regression with
        Interpolation-Based IoU Optimization. arXiv 2507.12420, 2025. The bounds of alpha and its
        stop-gradient follow the first author's code (NuayHL/interpiou, NuayHL/Ultralytics).

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
        _check_bounds(alpha_min, alpha_max)
        self.alpha_min = alpha_min
        self.alpha_max = alpha_max

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """One minus the IoU of the interpolated box."""
        alpha = dynamic_alpha(pair, self.alpha_min, self.alpha_max)
        return (interpolated_penalty(pair, alpha),)


def _check(alpha: float) -> None:
    check_argument("alpha", alpha, 0 <= alpha < 1, "in [0, 1)")


def _check_bounds(alpha_min: float, alpha_max: float) -> None:
    valid = 0 <= alpha_min <= alpha_max
    check_argument(
        "alpha_min", alpha_min, valid, f"in [0, alpha_max] with alpha_max = {alpha_max!r}"
    )
    check_argument("alpha_max", alpha_max, alpha_max < 1, "below 1")
