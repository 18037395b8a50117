"""Wise-IoU losses, versions 1 to 3."""

import math

import torch
from torch import Tensor

from det_losses.boxes import BoxPair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.losses.core.state import RunningMean, counted_rows, over_ranks
from det_losses.registry import MODELS


@MODELS.register_module()
class WIoUv1Loss(IoUFamilyLoss):
    r"""The IoU loss times a factor that grows with the distance of the centres.

    .. math:: L = R \, (1 - IoU), \qquad R = \exp\left(\frac{\rho^2}{c^{*2}}\right)

    :math:`\rho` is the distance of the two centres, :math:`c` the diagonal of the smallest box
    that encloses both, which is constant in the gradient. R lies in [1, e).

    Args:
        eps: the smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        A pull on the centres that leaves aspect ratios alone and fades where boxes overlap well.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        R alone: a gradient towards the target's centre, and none on the sizes.

    Raises:
        ValueError: a negative eps, or shapes that do not fit.

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
        """The attention R to the distance of the centres."""
        return torch.exp(pair.center_distance2 / pair.hull_diagonal2.detach())


def wiou_v1_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Wise-IoU v1 of each box, ``[N]``; see :class:`WIoUv1Loss`."""
    return WIoUv1Loss(eps=eps).unreduced(pred, target)


class _FocusedWIoU(WIoUv1Loss):
    """Version 1 times a gain that looks at a box's IoU loss beside its running mean.

    Args:
        momentum: the least weight of a new batch in the running mean, in (0, 1].
        eps: the smallest denominator.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.
    """

    def __init__(self, *, momentum: float, eps: float, reduction: str, loss_weight: float) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("momentum", momentum, 0 < momentum <= 1, "in (0, 1]")
        self.momentum = momentum
        self.iou_loss = RunningMean(momentum)

    def gain(self, beta: Tensor) -> Tensor:
        """The gain of boxes whose IoU loss is beta times the running mean, ``[N]``."""
        raise NotImplementedError

    def factor(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """The attention R times the gain; in training the running mean moves."""
        return super().factor(pair, weight) * self.gain(self._beta(pair.iou.detach(), weight))

    def _beta(self, iou: Tensor, weight: Tensor | None) -> Tensor:
        loss = (1 - iou).clamp(min=0)
        counted = counted_rows(loss, weight)
        total = torch.stack([torch.where(counted, loss, 0.0).sum(), counted.sum().to(loss)])
        total, count = (over_ranks(total) if self.training else total).unbind()
        mean = self.iou_loss(total / count.clamp(min=1), count > 0)
        return loss / mean.clamp(min=self.eps)


@MODELS.register_module()
class WIoUv2Loss(_FocusedWIoU):
    r"""Wise-IoU v1 that looks more at the boxes which are still far off.

    .. math:: L = \left(\frac{L^*_{IoU}}{\overline{L_{IoU}}}\right)^\gamma R \, L_{IoU}

    :math:`L_{IoU} = 1 - IoU` of the plain boxes, :math:`\overline{L_{IoU}}` its running mean over
    the batches, and R that of :class:`WIoUv1Loss`. The fraction is constant in the gradient.

    The mean is taken over boxes of weight above 0, of all ranks, and moves in training mode only.
    A batch moves it by max(1 / k, ``momentum``), k counting the batches that had boxes. The paper
    has :math:`m = 1 - 0.05^{1/(t n)}`, for n batches an epoch of which t pass until AP rises
    slowly, and a mean that starts at 1. The first 1 / m batches count alike here, so that a
    training much shorter than t n has a mean too; that is our choice.

    Args:
        gamma: exponent of the gain, at least 0; 0 is version 1.
        momentum: the paper's m, in (0, 1]. 1e-4 is that of the authors' code, 890 batches times 34
            epochs.
        eps: the smallest denominator: an area in square pixels, and the running mean.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        To spend the gradient on hard boxes, as the focal loss does, with a scale that does not fade
        as training goes on.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The largest gain; a gradient towards the target's centre, and none on the sizes.

    Raises:
        ValueError: gamma, momentum or eps out of range, or shapes that do not fit.

    Reference:
        Zanjia Tong, Yuhang Chen, Zewei Xu, Rong Yu: Wise-IoU: Bounding Box Regression Loss with
        Dynamic Focusing Mechanism. arXiv 2301.10051, 2023. gamma is that of the authors' code.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([[0.0, 0, 20, 40]])
        >>> loss = WIoUv2Loss()
        >>> loss(pred, target)  # first batch, gain 1: exp(15^2 / 2000) * 3/4
        tensor(0.8393)
        >>> loss(target, target), loss.iou_loss.mean  # of 3/4 and 0
        (tensor(0.), tensor(0.3750))
    """

    constant_in_gradient = ("the diagonal c of the enclosing box in R", "the gain")

    def __init__(
        self,
        *,
        gamma: float = 0.5,
        momentum: float = 1e-4,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(momentum=momentum, eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("gamma", gamma, gamma >= 0, "at least 0")
        self.gamma = gamma

    def gain(self, beta: Tensor) -> Tensor:
        """The power gamma of the outlier degree."""
        return beta**self.gamma


@MODELS.register_module()
class WIoUv3Loss(_FocusedWIoU):
    r"""Wise-IoU v1 that looks most at boxes of ordinary quality.

    .. math::
        L = r \, R \, L_{IoU}, \qquad r = \frac{\beta}{\delta \alpha^{\beta - \delta}}, \qquad
        \beta = \frac{L^*_{IoU}}{\overline{L_{IoU}}}

    :math:`L_{IoU} = 1 - IoU` of the plain boxes, :math:`\overline{L_{IoU}}` its running mean over
    the batches, and R that of :class:`WIoUv1Loss`. The outlier degree :math:`\beta` is constant in
    the gradient. r is largest at :math:`\beta = 1 / \ln \alpha` and 1 at
    :math:`\beta = \delta`. The running mean is kept as in :class:`WIoUv2Loss`.

    Args:
        alpha: how fast the gain of outliers falls, above 1.
        delta: the outlier degree at which the gain is 1, above 0.
        momentum: the paper's m, in (0, 1]. 1e-4 is that of the authors' code, 890 batches times 34
            epochs.
        eps: the smallest denominator: an area in square pixels, and the running mean.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Data with badly drawn boxes: neither they nor boxes that are nearly right get much gradient.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        A gradient towards the target's centre and none on the sizes; the further the running mean
        has fallen, the smaller.

    Raises:
        ValueError: alpha, delta, momentum or eps out of range, or shapes that do not fit.

    Reference:
        Zanjia Tong, Yuhang Chen, Zewei Xu, Rong Yu: Wise-IoU: Bounding Box Regression Loss with
        Dynamic Focusing Mechanism. arXiv 2301.10051, 2023.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([[0.0, 0, 20, 40]])
        >>> WIoUv3Loss()(pred, target)  # beta 1 in the first batch, r = 1.9^2 / 3
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
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(momentum=momentum, eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("alpha", alpha, alpha > 1, "above 1")
        check_argument("delta", delta, delta > 0, "above 0")
        self.alpha = alpha
        self.delta = delta

    def gain(self, beta: Tensor) -> Tensor:
        """The gain r, which tends to 0 for outliers."""
        return beta / self.delta * torch.exp((self.delta - beta) * math.log(self.alpha))
