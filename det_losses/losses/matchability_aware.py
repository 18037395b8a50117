"""Matchability-aware loss: cross-entropy with a power of the quality as target."""

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


def matchability_aware_loss(
    pred: Tensor,
    target: Tensor,
    quality: Tensor | None = None,
    *,
    gamma: float = 1.5,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Matchability-aware loss of each channel, ``[N, K]``; see :class:`MatchabilityAwareLoss`."""
    check_argument("gamma", gamma, gamma >= 0, "at least 0")

    def negative(x: Tensor) -> Tensor:
        return -sigmoid_power(x.detach(), gamma) * F.logsigmoid(-x)

    def positive(x: Tensor, q: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(x, q**gamma, reduction="none")

    loss = quality_channels(upcast(pred), target, quality, negative, positive)
    return weigh_channels(loss, class_weight)


@MODELS.register_module()
class MatchabilityAwareLoss(QualityLoss):
    r"""Unweighted cross-entropy of positives with a power of their quality as target.

    .. math::
        L = \begin{cases}
        -q^\gamma \ln p - (1 - q^\gamma) \ln (1 - p) & \text{at the label's channel} \\
        -p^\gamma \ln (1 - p) & \text{elsewhere} \end{cases}

    :math:`p = \sigma(x)`; :math:`q` is the quality, the IoU of the predicted box with its ground
    truth. Unlike in varifocal loss, a match of low quality keeps its full weight, so a high score
    on a badly localised box has a large loss. The weight :math:`p^\gamma` of the negatives is
    constant in the gradient.

    Args:
        gamma: exponent of the quality and of the negatives' score, at least 0.
        class_weight: factor on each channel, for positives and negatives; None means 1.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Detectors with one-to-one or sparse matching, in which many matches have a low quality.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored,
        with ``quality`` ``[N]`` in [0, 1], or ``(labels, quality)``; or values in [0, 1] of the
        shape of ``pred``, negative ignored, where a positive of quality 0 cannot be distinguished
        from a negative. Unreduced: ``[N, K]``.

    Raises:
        InputError: gamma below 0, a class_weight of the wrong length, or a target or quality of the
            wrong shape or type.

    Reference:
        Shihua Huang, Zhichao Lu, Xiaodong Cun, Yongjun Yu, Xiao Zhou, Xi Shen: DEIM: DETR with
        Improved Matching for Fast Convergence. arXiv 2412.04234, 2024.

    Note:
        The authors' code detaches the weight of the negatives, too. It can multiply it by
        ``mal_alpha``, which is off by default and not implemented here.

    Example:
        >>> import torch
        >>> loss = MatchabilityAwareLoss(reduction="none")
        >>> # score 0.5: ln 2 for a positive of any quality, 0.5^1.5 ln 2 for background
        >>> loss(torch.zeros(2, 1), torch.tensor([0, 1]), quality=torch.tensor([0.3, 0.0]))
        tensor([[0.6931],
                [0.2451]])
    """

    paper = "Huang et al., DEIM, arXiv 2412.04234, 2024"
    constant_in_gradient = ("the weight p^gamma of the negatives",)

    def __init__(
        self,
        *,
        gamma: float = 1.5,
        class_weight: Sequence[float] | None = None,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_argument("gamma", gamma, gamma >= 0, "at least 0")
        self._store_class_weight(class_weight)
        self.gamma = gamma

    def unreduced(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of each channel."""
        return matchability_aware_loss(
            pred, target, quality, gamma=self.gamma, class_weight=self._channel_weight
        )
