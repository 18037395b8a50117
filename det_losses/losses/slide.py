"""Slide loss: cross-entropy that weighs the examples near the mean IoU most."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import QualityLoss, quality_channels
from det_losses.losses.core.state import counted_rows
from det_losses.registry import MODELS
from det_losses.tensors import upcast


@MODELS.register_module()
class SlideLoss(QualityLoss):
    r"""Cross-entropy to the quality, weighted most where the quality is about its mean.

    .. math::
        L = f(y) \left(-y \ln \sigma(x) - (1 - y) \ln (1 - \sigma(x))\right), \qquad
        f(y) = \begin{cases}
        1 & y \le \mu - 0.1 \\
        e^{1 - \mu} & \mu - 0.1 < y < \mu \\
        e^{1 - y} & y \ge \mu
        \end{cases}

    y is the quality (IoU) at the label's channel and 0 elsewhere, :math:`\mu` the mean quality of
    the positives of this call, at least ``min_mean``. Rows of weight 0 do not enter :math:`\mu`.

    Args:
        min_mean: the smallest :math:`\mu`, in [0.1, 1], so that channels without an object always
            have weight 1.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        In forks of YOLO, to look more at boxes of middling quality, which the paper calls hard.
        The score becomes an estimate of the IoU.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, negative ignored,
        with quality ``[N]`` in [0, 1]; or ``[N, K]`` qualities, positive where above 0. Unreduced:
        ``[N, K]``.

    Raises:
        ValueError: min_mean out of range, or shapes that do not fit.

    Reference:
        Ziping Yu, Hongbo Huang, Weijun Chen, Yongxin Su, Yahui Liu, Xiuying Wang: YOLO-FaceV2: A
        Scale and Occlusion Aware Face Detector. arXiv 2208.02019, 2022. Formula and ``min_mean``
        are those of the authors' code.

    Note:
        The authors' code weighs the objectness of YOLOv5 so, whose target is the IoU, as the class
        scores are here; its mean is that of CIoU, of each level apart. It weighs the class scores
        too, but of a hard label f is always 1. Their first version had :math:`e^\mu` in the middle.

    Example:
        >>> import torch
        >>> loss, quality = SlideLoss(reduction="none"), torch.tensor([0.5, 0.9])
        >>> # mu = 0.7: the first weighs 1, the second e^(1 - 0.9); all logarithms are ln 2
        >>> loss(torch.zeros(2, 1), torch.tensor([0, 0]), quality=quality)
        tensor([[0.6931],
                [0.7660]])
    """

    paper = "Yu et al., YOLO-FaceV2, arXiv 2208.02019, 2022"

    def __init__(
        self, *, min_mean: float = 0.2, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_argument("min_mean", min_mean, 0.1 <= min_mean <= 1, "in [0.1, 1]")
        self.min_mean = min_mean

    def unreduced(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of each channel, ``[N, K]``."""
        mean = _mean_quality(pred, target, weight, quality).clamp(min=self.min_mean)

        def negative(x: Tensor) -> Tensor:
            return -F.logsigmoid(-x)

        def positive(x: Tensor, q: Tensor) -> Tensor:
            entropy = F.binary_cross_entropy_with_logits(x, q, reduction="none")
            return slide_weight(q, mean.to(q.dtype)) * entropy

        return quality_channels(upcast(pred), target, quality, negative, positive)


def _mean_quality(
    pred: Tensor, target: Tensor, weight: Tensor | None, quality: Tensor | None
) -> Tensor:
    """Mean quality of the positives whose weight is above 0, without axes; 0 if there is none."""
    if quality is None:
        value, positive = target, target > 0
    else:
        value, positive = quality, (target >= 0) & (target < pred.shape[-1])
        weight = None if weight is None else weight.amax(-1)
    positive = positive & counted_rows(value, weight)
    value = upcast(value.detach()).clamp(0, 1)
    return torch.where(positive, value, 0.0).sum() / positive.sum().clamp(min=1)


def slide_weight(quality: Tensor, mean: Tensor) -> Tensor:
    """Return the factor f of each quality, given the mean quality."""
    near = torch.where(quality > mean - 0.1, (1 - mean).exp(), 1.0)
    return torch.where(quality >= mean, math.e * (-quality).exp(), near)


def slide_loss(
    pred: Tensor, target: Tensor, quality: Tensor | None = None, *, min_mean: float = 0.2
) -> Tensor:
    """Slide loss of each channel, ``[N, K]``; the mean is over them; see :class:`SlideLoss`."""
    return SlideLoss(min_mean=min_mean).unreduced(pred, target, quality=quality)
