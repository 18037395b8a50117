"""Wise-IoU losses, versions 1 to 3."""

import math

import torch
from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.losses.core.state import RunningMean, counted_rows, sum_and_weight
from det_losses.registry import MODELS


def wiou_v1_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Wise-IoU v1 of each box, ``[N]``; see :class:`WIoUv1Loss`."""
    pair = box_pair(pred, target, eps)
    return (1 - pair.iou) * distance_attention(pair)


def distance_attention(pair: BoxPair) -> Tensor:
    """Return R of each box, ``[N]``; the diagonal of the enclosing box is detached."""
    return torch.exp(pair.center_distance2 / pair.hull_diagonal2.detach())


@MODELS.register_module()
class WIoUv1Loss(IoUFamilyLoss):
    r"""The IoU loss times a factor that grows with the distance of the centres.

    .. math:: L = R \, (1 - IoU), \qquad R = \exp\left(\frac{\rho^2}{c^{*2}}\right)

    :math:`\rho` is the distance of the centres, :math:`c` the diagonal of the smallest enclosing
    box. c is constant in the gradient. R is in [1, e).

    Args:
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Adds a gradient on the centres that ignores aspect ratios and vanishes where boxes overlap
        well.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The loss is R: the gradient moves the centre towards that of the target and does not change
        the size.

    Raises:
        InputError: a negative eps, or mismatched shapes.

    Reference:
        Zanjia Tong, Yuhang Chen, Zewei Xu, Rong Yu: Wise-IoU: Bounding Box Regression Loss with
        Dynamic Focusing Mechanism. arXiv 2301.10051, 2023.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 30, 40]]), torch.tensor([[30.0, 40, 60, 80]])
        >>> WIoUv1Loss()(pred, target)  # they touch at a corner: centres 50 apart, diagonal 100
        tensor(1.2840)
    """

    paper = "Tong et al., Wise-IoU, arXiv 2301.10051, 2023"
    constant_in_gradient = ("the diagonal c of the enclosing box in R",)

    def factor(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """The distance attention R."""
        return distance_attention(pair)


class _FocusedWIoU(WIoUv1Loss):
    """Version 1 times a gain that depends on a box's IoU loss relative to its running mean.

    Args:
        momentum: weight of a new batch in the running mean, in (0, 1].
        start: running mean before the first batch, or None.
        eps: smallest denominator.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.
    """

    def __init__(
        self,
        *,
        momentum: float,
        start: float | None,
        eps: float,
        reduction: str,
        loss_weight: float,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("momentum", momentum, 0 < momentum <= 1, "in (0, 1]")
        check_argument("start", start, start is None or 0 < start <= 1, "in (0, 1] or None")
        self.momentum = momentum
        self.start = start
        self.iou_loss = RunningMean(momentum, start=start)

    def gain(self, beta: Tensor) -> Tensor:
        """Gain of boxes whose IoU loss is beta times the running mean, ``[N]``."""
        raise NotImplementedError

    def factor(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """The distance attention R times the gain; in training the running mean is updated."""
        return super().factor(pair, weight) * self.gain(self._beta(pair.iou.detach(), weight))

    def _beta(self, iou: Tensor, weight: Tensor | None) -> Tensor:
        loss = (1 - iou).clamp(min=0)
        counted = None if weight is None else counted_rows(loss, weight)
        total, count = sum_and_weight(loss, counted, shared=self.training)
        divisor = count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)
        mean = self.iou_loss(total / divisor, count > 0)
        return loss / mean.clamp(min=self.eps)


@MODELS.register_module()
class WIoUv2Loss(_FocusedWIoU):
    r"""Wise-IoU v1 with more weight on boxes that overlap little.

    .. math:: L = \left(\frac{L^*_{IoU}}{\overline{L_{IoU}}}\right)^\gamma R \, L_{IoU}

    :math:`L_{IoU} = 1 - IoU`, :math:`\overline{L_{IoU}}` is its running mean over the batches, and
    R that of :class:`WIoUv1Loss`. The fraction is constant in the gradient.

    The mean is taken over boxes of weight above 0, of all ranks, and updated in training mode only.
    By default it starts at 1, as in the authors' code. The paper sets the momentum to :math:`m = 1
    - 0.05^{1/(t n)}`, for n batches per epoch and t epochs until AP rises slowly. In a training
    much shorter than t n batches the mean stays near 1. In that case set the momentum by this rule,
    or set ``start=None``.

    Args:
        gamma: exponent of the gain, at least 0; 0 is version 1.
        momentum: the paper's m, in (0, 1]. 1e-4 is the value in the authors' branch v1, for 890
            batches per epoch and 34 epochs; their branch master has 1e-2.
        start: running mean before the first batch, in (0, 1]; 1 as in the authors' code. With None,
            the first 1 / m batches have equal weight, so the mean follows the loss from the first
            batch.
        eps: smallest denominator: an area in square pixels, or the running mean.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        More weight on hard boxes, as in focal loss, with a gain that does not shrink as the loss
        falls.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The gain is largest. The gradient moves the centre towards that of the target and does not
        change the size.

    Raises:
        InputError: gamma, momentum, start or eps out of range, or mismatched shapes.

    Reference:
        Zanjia Tong, Yuhang Chen, Zewei Xu, Rong Yu: Wise-IoU: Bounding Box Regression Loss with
        Dynamic Focusing Mechanism. arXiv 2301.10051, 2023. gamma, momentum and start are those of
        the authors' code (Instinct323/wiou, branch v1).

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([[0.0, 0, 20, 40]])
        >>> loss = WIoUv2Loss(momentum=0.5)
        >>> loss(pred, target)  # mean (1 + 3/4) / 2: sqrt(6/7) * exp(15^2 / 2000) * 3/4
        tensor(0.7770)
        >>> loss(target, target), loss.iou_loss.mean
        (tensor(0.), tensor(0.4375))
    """

    constant_in_gradient = ("the diagonal c of the enclosing box in R", "the gain")

    def __init__(
        self,
        *,
        gamma: float = 0.5,
        momentum: float = 1e-4,
        start: float | None = 1.0,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(
            momentum=momentum, start=start, eps=eps, reduction=reduction, loss_weight=loss_weight
        )
        check_argument("gamma", gamma, gamma >= 0, "at least 0")
        self.gamma = gamma

    def gain(self, beta: Tensor) -> Tensor:
        """The outlier degree to the power gamma."""
        return beta**self.gamma


@MODELS.register_module()
class WIoUv3Loss(_FocusedWIoU):
    r"""Wise-IoU v1 with most weight on boxes of medium quality.

    .. math::
        L = r \, R \, L_{IoU}, \qquad r = \frac{\beta}{\delta \alpha^{\beta - \delta}}, \qquad
        \beta = \frac{L^*_{IoU}}{\overline{L_{IoU}}}

    :math:`L_{IoU} = 1 - IoU`, :math:`\overline{L_{IoU}}` is its running mean over the batches, and
    R that of :class:`WIoUv1Loss`. The outlier degree :math:`\beta` is constant in the gradient. r
    is largest at :math:`\beta = 1 / \ln \alpha` and 1 at :math:`\beta = \delta`. The running mean
    is that of :class:`WIoUv2Loss`.

    Args:
        alpha: base of the gain's decay for outliers, above 1.
        delta: outlier degree at which the gain is 1, above 0.
        momentum: the paper's m, in (0, 1]. 1e-4 is the value in the authors' branch v1, for 890
            batches per epoch and 34 epochs; their branch master has momentum 1e-2, alpha 1.7 and
            delta 2.7.
        start: running mean before the first batch, in (0, 1]; 1 as in the authors' code. With None,
            the first 1 / m batches have equal weight, so the mean follows the loss from the first
            batch.
        eps: smallest denominator: an area in square pixels, or the running mean.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Data with inaccurate annotations: outliers and almost perfect boxes get a small gradient.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The gradient moves the centre towards that of the target and does not change the size. It
        shrinks with the running mean: the gain r of an outlier falls as its IoU loss exceeds the
        mean, so the loss may fall as a box moves away.

    Raises:
        InputError: alpha, delta, momentum, start or eps out of range, or mismatched shapes.

    Reference:
        Zanjia Tong, Yuhang Chen, Zewei Xu, Rong Yu: Wise-IoU: Bounding Box Regression Loss with
        Dynamic Focusing Mechanism. arXiv 2301.10051, 2023. alpha, delta, momentum and start are
        those of the authors' code (Instinct323/wiou, branch v1).

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([[0.0, 0, 20, 40]])
        >>> WIoUv3Loss(start=None)(pred, target)  # beta 1 in the first batch, r = 1.9^2 / 3
        tensor(1.0100)
    """

    constant_in_gradient = ("the diagonal c of the enclosing box in R", "the gain r")
    monotone_in_distance = False

    def __init__(
        self,
        *,
        alpha: float = 1.9,
        delta: float = 3.0,
        momentum: float = 1e-4,
        start: float | None = 1.0,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(
            momentum=momentum, start=start, eps=eps, reduction=reduction, loss_weight=loss_weight
        )
        check_argument("alpha", alpha, alpha > 1, "above 1")
        check_argument("delta", delta, delta > 0, "above 0")
        self.alpha = alpha
        self.delta = delta

    def gain(self, beta: Tensor) -> Tensor:
        """The gain r, which tends to 0 for outliers."""
        return beta / self.delta * torch.exp((self.delta - beta) * math.log(self.alpha))
