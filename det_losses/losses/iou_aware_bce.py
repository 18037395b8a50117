"""IoU-aware binary cross-entropy, IA-BCE."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    QualityLoss,
    quality_channels,
    sigmoid_power,
    weigh_channels,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def iou_aware_bce_loss(
    pred: Tensor,
    target: Tensor,
    quality: Tensor | None = None,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    min_target: float = 0.01,
    class_weight: Tensor | None = None,
) -> Tensor:
    """IA-BCE of each channel, ``[N, K]``; see :class:`IoUAwareBCELoss`."""
    _check(alpha, gamma, min_target)

    def negative(x: Tensor) -> Tensor:
        return -sigmoid_power(x, gamma) * F.logsigmoid(-x)

    def positive(x: Tensor, q: Tensor) -> Tensor:
        t = (sigmoid_power(x.detach(), alpha) * q ** (1 - alpha)).clamp(min=min_target)
        return F.binary_cross_entropy_with_logits(x, t, reduction="none")

    loss = quality_channels(upcast(pred), target, quality, negative, positive)
    return weigh_channels(loss, class_weight)


@MODELS.register_module()
class IoUAwareBCELoss(QualityLoss):
    r"""IA-BCE: cross-entropy whose target for positives is a geometric mean of score and IoU.

    .. math::
        L_{pos} = -t \ln s - (1 - t) \ln (1 - s), \quad
        t = \max(s^\alpha q^{1 - \alpha}, t_{min}); \qquad
        L_{neg} = -s^\gamma \ln (1 - s)

    s is the sigmoid of the logit and q the quality (IoU) of the row's box. :math:`L_{pos}` applies
    at the label's channel, :math:`L_{neg}` elsewhere. The target t is constant in the gradient.

    Args:
        alpha: exponent of the score in t, in [0, 1]; with 0, t is the quality.
        gamma: focusing parameter of the negatives, at least 0.
        min_target: the smallest t, in [0, 1].
        class_weight: factor on each channel, for positives and negatives; None means 1.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        The classification loss of Align-DETR and RF-DETR: the class score ranks boxes by
        localisation quality.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored,
        with quality ``[N]`` in [0, 1]; or ``[N, K]`` qualities, positive where above 0. Unreduced:
        ``[N, K]``.

    Raises:
        InputError: an argument out of range, a class_weight of the wrong length, or shapes that do
            not fit.

    Reference:
        Zhi Cai, Songtao Liu, Guodong Wang, Zheng Ge, Xiangyu Zhang, Di Huang: Align-DETR: Improving
        DETR with Simple IoU-aware BCE loss. arXiv 2304.07527, 2023. The formula is that of the
        authors' code (FelixCaae/AlignDETR) and of rfdetr 1.11.

    Note:
        Align-DETR matches several queries to an object and scales t by a factor that falls with
        their rank. That factor is part of its matcher and is 1 here, as in RF-DETR.

    Example:
        >>> import torch
        >>> quality = torch.tensor([0.8])
        >>> # s = 1/2: both logarithms are -ln 2, so the value does not depend on t
        >>> IoUAwareBCELoss()(torch.zeros(1, 1), torch.tensor([0]), quality=quality)
        tensor(0.6931)
    """

    paper = "Cai et al., Align-DETR, arXiv 2304.07527, 2023"
    constant_in_gradient = ("the target t",)

    def __init__(
        self,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        min_target: float = 0.01,
        class_weight: Sequence[float] | None = None,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        _check(alpha, gamma, min_target)
        self._store_class_weight(class_weight)
        self.alpha = alpha
        self.gamma = gamma
        self.min_target = min_target

    def unreduced(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of each channel, ``[N, K]``."""
        return iou_aware_bce_loss(
            pred,
            target,
            quality,
            alpha=self.alpha,
            gamma=self.gamma,
            min_target=self.min_target,
            class_weight=self._channel_weight,
        )


def _check(alpha: float, gamma: float, min_target: float) -> None:
    check_argument("alpha", alpha, 0 <= alpha <= 1, "in [0, 1]")
    check_argument("gamma", gamma, gamma >= 0, "at least 0")
    check_argument("min_target", min_target, 0 <= min_target <= 1, "in [0, 1]")
