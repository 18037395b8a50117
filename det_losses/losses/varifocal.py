"""Varifocal loss: positives weighted by their quality, negatives by their score."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    QualityLoss,
    quality_channels,
    require_sigmoid,
    sigmoid_power,
    weigh_channels,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def varifocal_loss(
    pred: Tensor,
    target: Tensor,
    quality: Tensor | None = None,
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
    detach_focusing: bool = False,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Varifocal loss of each channel, ``[N, K]``; see :class:`VarifocalLoss`."""
    _check(alpha, gamma)

    def negative(x: Tensor) -> Tensor:
        focusing = sigmoid_power(x.detach() if detach_focusing else x, gamma)
        return -alpha * focusing * F.logsigmoid(-x)

    def positive(x: Tensor, q: Tensor) -> Tensor:
        entropy = F.binary_cross_entropy_with_logits(x, q, reduction="none")
        return torch.where(q > 0, q * entropy if iou_weighted else entropy, negative(x))

    loss = quality_channels(upcast(pred), target, quality, negative, positive)
    return weigh_channels(loss, class_weight)


@MODELS.register_module()
class VarifocalLoss(QualityLoss):
    r"""Cross-entropy with the quality as target and weight of positives; focal loss for negatives.

    .. math::
        L = \begin{cases}
        -q \left( q \ln p + (1 - q) \ln (1 - p) \right) & q > 0 \\
        -\alpha p^\gamma \ln (1 - p) & q = 0 \end{cases}

    :math:`p = \sigma(x)`; :math:`q` is the quality (the IoU of the predicted box with its ground
    truth) at the label's channel and 0 elsewhere. Only negatives are down-weighted by their score.
    A positive of quality 0 counts as a negative. The paper divides the sum by the number of
    positives: pass it as ``avg_factor``.

    Args:
        use_sigmoid: must be True: the loss is defined for the sigmoid only.
        alpha: weight of the negatives, at least 0.
        gamma: focusing parameter of the negatives, at least 0.
        iou_weighted: whether a positive is weighted by its quality instead of 1.
        detach_focusing: whether the factor :math:`p^\gamma` is constant in the gradient.
        class_weight: factor on each channel, for positives and negatives; None means 1.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Dense detectors whose class score ranks boxes by their IoU; well-localised positives count
        most.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored,
        with ``quality`` ``[N]`` in [0, 1], or ``(labels, quality)``; or values in [0, 1] of the
        shape of ``pred``, negative ignored. Unreduced: ``[N, K]``.

    Raises:
        InputError: use_sigmoid=False, alpha or gamma below 0, a class_weight of the wrong length,
            or a target or quality of the wrong shape or type.

    Reference:
        Haoyang Zhang, Ying Wang, Feras Dayoub, Niko Suenderhauf: VarifocalNet: An IoU-aware Dense
        Object Detector. arXiv 2008.13367, 2020.

    Note:
        mmdetection 3.3 differentiates :math:`p^\gamma`, which is the default here. D-FINE and DEIM
        detach it: use ``detach_focusing=True`` to compare MatchabilityAwareLoss with its baseline.
        In their code a positive of quality 0 has loss 0.

    Example:
        >>> import torch
        >>> loss = VarifocalLoss(reduction="none")
        >>> # score 0.5: 0.8 ln 2 for a positive of quality 0.8, 0.75 * 0.5^2 ln 2 for background
        >>> loss(torch.zeros(2, 1), torch.tensor([0, 1]), quality=torch.tensor([0.8, 0.0]))
        tensor([[0.5545],
                [0.1300]])
    """

    paper = "Zhang et al., VarifocalNet, arXiv 2008.13367, 2020"

    def __init__(
        self,
        *,
        use_sigmoid: bool = True,
        alpha: float = 0.75,
        gamma: float = 2.0,
        iou_weighted: bool = True,
        detach_focusing: bool = False,
        class_weight: Sequence[float] | None = None,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        require_sigmoid("VarifocalLoss", use_sigmoid)
        _check(alpha, gamma)
        self._store_class_weight(class_weight)
        self.use_sigmoid = use_sigmoid
        self.alpha = alpha
        self.gamma = gamma
        self.iou_weighted = iou_weighted
        self.detach_focusing = detach_focusing
        if detach_focusing:
            self.constant_in_gradient = ("the focusing factor p^gamma of the negatives",)

    def unreduced(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of each channel."""
        return varifocal_loss(
            pred,
            target,
            quality,
            alpha=self.alpha,
            gamma=self.gamma,
            iou_weighted=self.iou_weighted,
            detach_focusing=self.detach_focusing,
            class_weight=self._channel_weight,
        )


def _check(alpha: float, gamma: float) -> None:
    check_argument("alpha", alpha, alpha >= 0, "at least 0")
    check_argument("gamma", gamma, gamma >= 0, "at least 0")
