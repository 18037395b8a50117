"""Asymmetric loss: separate focusing of positives and negatives, and a margin for negatives."""

from collections.abc import Mapping, Sequence
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
    weigh_channels,
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
    detach_focusing: bool = False,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Asymmetric loss of each channel, ``[N, K]``; see :class:`AsymmetricLoss`."""
    _check(gamma_pos, gamma_neg, clip)
    dense = is_dense(pred, target)
    pred = upcast(pred)

    def focusing(weight: Tensor) -> Tensor:
        return weight.detach() if detach_focusing else weight

    def positive(x: Tensor) -> Tensor:
        return -focusing(sigmoid_power(-x, gamma_pos)) * F.logsigmoid(x)

    def negative(x: Tensor) -> Tensor:
        if clip == 0:
            return -focusing(sigmoid_power(x, gamma_neg)) * F.logsigmoid(-x)
        shifted = (x.sigmoid() - clip).clamp(min=0)
        # ln(1 - p + m) from the logit, because 1 - p is rounded to 0 where p is close to 1.
        margin = torch.full_like(x, clip).log()
        log_rest = torch.logaddexp(F.logsigmoid(-x), margin).clamp(max=0)
        return -focusing(safe_power(shifted, gamma_neg)) * log_rest

    if dense:
        y = target.to(pred.dtype).clamp(0, 1)
        loss = y * positive(pred) + (1 - y) * negative(pred)
        loss = torch.where(is_valid(target, None), loss, 0.0)
    else:
        loss = sparse_channels(pred, target, negative, lambda x, _: positive(x))
    return weigh_channels(loss, class_weight)


@MODELS.register_module()
class AsymmetricLoss(ClassificationLoss):
    r"""Cross-entropy with separate focusing parameters for positives and negatives.

    .. math::
        L_+ = -(1 - p)^{\gamma_+} \ln p, \qquad
        L_- = -p_m^{\gamma_-} \ln (1 - p_m), \qquad p_m = \max(p - m, 0)

    :math:`L_+` at the label's channel, :math:`L_-` elsewhere, :math:`p = \sigma(x)`. The margin m
    sets the loss of negatives with a score below m to 0. It reduces the loss of negatives with a
    score near 1, which may be mislabelled. Soft targets y in [0, 1] give :math:`y L_+ + (1 - y)
    L_-`.

    Args:
        gamma_pos: focusing parameter of positives, at least 0.
        gamma_neg: focusing parameter of negatives, at least 0.
        clip: the margin m, in [0, 1); 0 disables it.
        detach_focusing: whether the factors :math:`(1 - p)^{\gamma_+}` and
            :math:`p_m^{\gamma_-}` are constant in the gradient.
        class_weight: factor on each channel, for positives and negatives; None means 1.
        use_sigmoid: must be True: the loss is defined for the sigmoid only.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Many more negatives than positives, some of which are unlabelled objects.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored;
        or values in [0, 1] of the shape of ``pred``, negative ignored. Unreduced: ``[N, K]``.

    Raises:
        InputError: use_sigmoid=False, gamma_pos, gamma_neg or clip out of range, a class_weight of
            the wrong length, or a target of the wrong shape or type.

    Reference:
        Emanuel Ben-Baruch, Tal Ridnik, Nadav Zamir, Asaf Noy, Itamar Friedman, Matan Protter,
        Lihi Zelnik-Manor: Asymmetric Loss For Multi-Label Classification. arXiv 2009.14119, 2020.

    Note:
        The authors' training script (Alibaba-MIIL/ASL, train.py) passes
        ``disable_torch_grad_focal_loss=True``, which is ``detach_focusing=True`` here, with
        gamma_neg 4, gamma_pos 0 and clip 0.05. mmpretrain 1.2 differentiates the factors, which is
        the default here. It clamps the argument of the logarithm to ``eps=1e-8``, so with gamma_pos
        0 a positive with a logit below -18.5 has no gradient. Here logarithms are computed from
        logits.

    Example:
        >>> import torch
        >>> loss = AsymmetricLoss(reduction="none")
        >>> # at score 0.5: ln 2 for a positive, -0.45^4 ln 0.55 for background
        >>> loss(torch.zeros(2, 1), torch.tensor([0, 1]))
        tensor([[0.6931],
                [0.0245]])
    """

    paper = "Ben-Baruch et al., Asymmetric Loss, arXiv 2009.14119, 2020"
    activation = "sigmoid"
    refused: ClassVar[Mapping[str, str]] = {
        "eps": "logarithms are computed from logits and need no lower bound"
    }

    def __init__(
        self,
        *,
        gamma_pos: float = 0.0,
        gamma_neg: float = 4.0,
        clip: float = 0.05,
        detach_focusing: bool = False,
        class_weight: Sequence[float] | None = None,
        use_sigmoid: bool = True,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        require_sigmoid("AsymmetricLoss", use_sigmoid)
        _check(gamma_pos, gamma_neg, clip)
        self._store_class_weight(class_weight)
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.clip = clip
        self.detach_focusing = detach_focusing
        self.use_sigmoid = use_sigmoid
        if detach_focusing:
            self.constant_in_gradient = ("the focusing factors",)

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel."""
        return asymmetric_loss(
            pred,
            target,
            gamma_pos=self.gamma_pos,
            gamma_neg=self.gamma_neg,
            clip=self.clip,
            detach_focusing=self.detach_focusing,
            class_weight=self._channel_weight,
        )


def _check(gamma_pos: float, gamma_neg: float, clip: float) -> None:
    check_argument("gamma_pos", gamma_pos, gamma_pos >= 0, "at least 0")
    check_argument("gamma_neg", gamma_neg, gamma_neg >= 0, "at least 0")
    check_argument("clip", clip, 0 <= clip < 1, "in [0, 1)")
