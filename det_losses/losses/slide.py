"""Slide loss: cross-entropy with the largest weight near the mean IoU."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    QualityLoss,
    check_quality,
    quality_channels,
    weigh_channels,
)
from det_losses.losses.core.state import counted_rows, sum_and_weight
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def slide_loss(
    pred: Tensor,
    target: Tensor,
    quality: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    min_mean: float = 0.2,
    class_weight: Tensor | None = None,
    shared: bool = False,
) -> Tensor:
    """Slide loss of each channel, ``[N, K]``; see :class:`SlideLoss`.

    Rows whose sample weight in ``weight`` is 0 do not count in the mean quality. The loss is not
    multiplied by ``weight``. With ``shared`` the mean is over the positives of all ranks.
    """
    _check(min_mean)
    check_quality(pred, target, quality)
    mean = mean_quality(pred, target, quality, weight, shared=shared).clamp(min=min_mean)

    def negative(x: Tensor) -> Tensor:
        return -F.logsigmoid(-x)

    def positive(x: Tensor, q: Tensor) -> Tensor:
        entropy = F.binary_cross_entropy_with_logits(x, q, reduction="none")
        return slide_weight(q, mean.to(q.dtype)) * entropy

    loss = quality_channels(upcast(pred), target, quality, negative, positive)
    return weigh_channels(loss, class_weight)


def slide_weight(quality: Tensor, mean: Tensor) -> Tensor:
    """Return the factor f of each quality, given the mean quality."""
    near = torch.where(quality > mean - 0.1, (1 - mean).exp(), 1.0)
    return torch.where(quality >= mean, math.e * (-quality).exp(), near)


def mean_quality(
    pred: Tensor,
    target: Tensor,
    quality: Tensor | None,
    weight: Tensor | None,
    *,
    shared: bool = False,
) -> Tensor:
    """Mean quality of the positives with a weight above 0, a scalar; 0 without positives.

    With ``shared`` it is that of the positives of all ranks.
    """
    if quality is None:
        value, positive = target, target > 0
    else:
        value, positive = quality, (target >= 0) & (target < pred.shape[-1])
        weight = None if weight is None else weight.amax(-1)
    positive = positive & counted_rows(value, weight)
    value = upcast(value.detach()).clamp(0, 1)
    total, count = sum_and_weight(value, positive, shared)
    return total / count.clamp(min=1)


@MODELS.register_module()
class SlideLoss(QualityLoss):
    r"""Cross-entropy with the quality as target, weighted most for qualities near their mean.

    .. math::
        L = f(y) \left(-y \ln \sigma(x) - (1 - y) \ln (1 - \sigma(x))\right), \qquad
        f(y) = \begin{cases}
        1 & y \le \mu - 0.1 \\
        e^{1 - \mu} & \mu - 0.1 < y < \mu \\
        e^{1 - y} & y \ge \mu
        \end{cases}

    y is the quality (IoU) at the label's channel and 0 elsewhere. :math:`\mu` is the mean quality
    of the positives of this call, in training of all ranks, at least ``min_mean``. Rows of
    weight 0 do not count in :math:`\mu`.

    Args:
        min_mean: lower bound of :math:`\mu`, in [0.1, 1], so that negatives always have weight 1.
        class_weight: factor on each channel, for positives and negatives; None means 1.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        YOLO variants: more weight for boxes of medium quality, which the paper calls hard. The
        score becomes an estimate of the IoU.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored,
        with quality ``[N]`` in [0, 1]; or ``[N, K]`` qualities, positive where above 0. Unreduced:
        ``[N, K]``.

    Raises:
        InputError: min_mean out of range, a class_weight of the wrong length, or shapes that do not
            fit.

    Reference:
        Ziping Yu, Hongbo Huang, Weijun Chen, Yongxin Su, Yahui Liu, Xiuying Wang: YOLO-FaceV2: A
        Scale and Occlusion Aware Face Detector. arXiv 2208.02019, 2022. ``min_mean`` is taken from
        the authors' code (Krasjet-Yu/YOLO-FaceV2, utils/loss.py).

    Note:
        The formula is the paper's and that of release v1.0.0 of the authors' code. Their master has
        :math:`e^\mu` instead of :math:`e^{1 - \mu}` in the middle case, which is smaller if the
        mean is below 0.5. They apply the loss to the objectness of YOLOv5, whose target is the IoU,
        with the mean CIoU of each pyramid level as :math:`\mu`. They also apply it to the class
        scores, whose targets are 0 and 1 without label smoothing: there f is 1.

    Example:
        >>> import torch
        >>> loss, quality = SlideLoss(reduction="none"), torch.tensor([0.5, 0.9])
        >>> # mu = 0.7: weights 1 and e^(1 - 0.9); all logarithms are -ln 2
        >>> loss(torch.zeros(2, 1), torch.tensor([0, 0]), quality=quality)
        tensor([[0.6931],
                [0.7660]])
    """

    paper = "Yu et al., YOLO-FaceV2, arXiv 2208.02019, 2022"

    def __init__(
        self,
        *,
        min_mean: float = 0.2,
        class_weight: Sequence[float] | None = None,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        _check(min_mean)
        self._store_class_weight(class_weight)
        self.min_mean = min_mean

    def unreduced(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of each channel, ``[N, K]``."""
        return slide_loss(
            pred,
            target,
            quality,
            weight=weight,
            min_mean=self.min_mean,
            class_weight=self._channel_weight,
            shared=self.training,
        )


def _check(min_mean: float) -> None:
    check_argument("min_mean", min_mean, 0.1 <= min_mean <= 1, "in [0.1, 1]")
