"""Asymmetric loss: positives and negatives fade differently, easy negatives are dropped."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    ClassificationLoss,
    is_dense,
    is_valid,
    require_sigmoid,
    safe_power,
    sigmoid_power,
    sparse_channels,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def asymmetric_loss(
    pred: Tensor,
    target: Tensor,
    *,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
) -> Tensor:
    """Asymmetric loss of each channel, ``[N, K]``; see :class:`AsymmetricLoss`."""
    _check(gamma_pos, gamma_neg, clip)
    dense = is_dense(pred, target)
    pred = upcast(pred)

    def positive(x: Tensor) -> Tensor:
        return -sigmoid_power(-x, gamma_pos) * F.logsigmoid(x)

    def negative(x: Tensor) -> Tensor:
        if clip == 0:
            return -sigmoid_power(x, gamma_neg) * F.logsigmoid(-x)
        shifted = (x.sigmoid() - clip).clamp(min=0)
        # ln(1 - p + m) of the logit: 1 - p itself is lost to rounding where p is close to 1.
        margin = torch.full_like(x, clip).log()
        log_rest = torch.logaddexp(F.logsigmoid(-x), margin).clamp(max=0)
        return -safe_power(shifted, gamma_neg) * log_rest

    if not dense:
        return sparse_channels(pred, target, negative, lambda x, _: positive(x))
    value = target.to(pred.dtype).clamp(0, 1)
    loss = value * positive(pred) + (1 - value) * negative(pred)
    return torch.where(is_valid(target, None), loss, 0.0)


@MODELS.register_module()
class AsymmetricLoss(ClassificationLoss):
    r"""Cross-entropy with a focus of its own for positives and for negatives.

    .. math::
        L_+ = -(1 - p)^{\gamma_+} \ln p, \qquad
        L_- = -p_m^{\gamma_-} \ln (1 - p_m), \qquad p_m = \max(p - m, 0)

    :math:`L_+` at the label's channel, :math:`L_-` elsewhere, :math:`p = \sigma(x)`. Shifting the
    probability of negatives by the margin m drops those that score below m entirely, and fades
    those near 1, which may be mislabelled. Factors take part in the gradient. Values y between 0
    and 1 cost :math:`y L_+ + (1 - y) L_-`.

    Args:
        gamma_pos: focus of the positives, at least 0.
        gamma_neg: focus of the negatives, at least 0.
        clip: the margin m, in [0, 1); 0 is no shift.
        use_sigmoid: sigmoid of each channel; only True.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Many more negatives than positives, some of them objects without a label.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, negative ignored;
        or values in [0, 1] of the shape of ``pred``, negative ignored. Unreduced: ``[N, K]``.

    Raises:
        ValueError: use_sigmoid=False, gamma_pos, gamma_neg or clip out of range, or a target of
            another shape or type.

    Reference:
        Emanuel Ben-Baruch, Tal Ridnik, Nadav Zamir, Asaf Noy, Itamar Friedman, Matan Protter,
        Lihi Zelnik-Manor: Asymmetric Loss For Multi-Label Classification. arXiv 2009.14119, 2020.

    Note:
        mmpretrain takes logarithms of probabilities of at least ``eps``, so a positive at a logit
        below about -18 has no gradient there; here logarithms are taken of logits.

    Example:
        >>> import torch
        >>> loss = AsymmetricLoss(reduction="none")
        >>> # at score 0.5: a positive costs ln 2, background -0.45^4 ln 0.55
        >>> loss(torch.zeros(2, 1), torch.tensor([0, 1]))
        tensor([[0.6931],
                [0.0245]])
    """

    paper = "Ben-Baruch et al., Asymmetric Loss, arXiv 2009.14119, 2020"
    activation = "sigmoid"
    refused: ClassVar[Mapping[str, str]] = {
        "eps": "logarithms are taken of logits here and need no smallest argument"
    }

    def __init__(
        self,
        *,
        gamma_pos: float = 0.0,
        gamma_neg: float = 4.0,
        clip: float = 0.05,
        use_sigmoid: bool = True,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        require_sigmoid("AsymmetricLoss", use_sigmoid)
        _check(gamma_pos, gamma_neg, clip)
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.clip = clip
        self.use_sigmoid = use_sigmoid

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel."""
        return asymmetric_loss(
            pred, target, gamma_pos=self.gamma_pos, gamma_neg=self.gamma_neg, clip=self.clip
        )


def _check(gamma_pos: float, gamma_neg: float, clip: float) -> None:
    check_argument("gamma_pos", gamma_pos, gamma_pos >= 0, "at least 0")
    check_argument("gamma_neg", gamma_neg, gamma_neg >= 0, "at least 0")
    check_argument("clip", clip, 0 <= clip < 1, "in [0, 1)")
