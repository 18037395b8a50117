"""Quality focal loss: focal loss with the quality of the box as target."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.errors import InputError
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    QualityLoss,
    quality_channels,
    require_sigmoid,
    safe_power,
    sigmoid_power,
    weigh_channels,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def quality_focal_loss(
    pred: Tensor,
    target: Tensor,
    quality: Tensor | None = None,
    *,
    beta: float = 2.0,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Quality focal loss of each channel, ``[N, K]``; see :class:`QualityFocalLoss`."""
    check_argument("beta", beta, beta >= 0, "at least 0")

    def negative(x: Tensor) -> Tensor:
        return -sigmoid_power(x, beta) * F.logsigmoid(-x)

    def positive(x: Tensor, y: Tensor) -> Tensor:
        # Near 1, subtract the complements: they are small, so the difference is accurate.
        gap = torch.where(y > 0.5, (-x).sigmoid() - (1 - y), y - x.sigmoid()).abs()
        return safe_power(gap, beta) * F.binary_cross_entropy_with_logits(x, y, reduction="none")

    loss = quality_channels(upcast(pred), target, quality, negative, positive)
    return weigh_channels(loss, class_weight)


@MODELS.register_module()
class QualityFocalLoss(QualityLoss):
    r"""Focal loss whose target at the label's channel is the quality of the box.

    .. math:: L = -|y - \sigma|^\beta \left( (1 - y) \ln (1 - \sigma) + y \ln \sigma \right)

    :math:`y` is the quality (the IoU of the predicted box with its ground truth) at the label's
    channel and 0 elsewhere. The factor is part of the gradient; it goes to 0 as the score
    approaches the quality. With quality 1 this is focal loss without alpha. The paper divides the
    sum by the number of positives: pass it as ``avg_factor``.

    Args:
        use_sigmoid: must be True: the loss is defined for the sigmoid only.
        beta: focusing parameter, at least 0; 0 is binary cross-entropy.
        activated: must be False: pred contains logits.
        class_weight: factor on each channel, for positives and negatives; None means 1.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Dense detectors without a centre-ness or IoU branch: the class score itself ranks boxes by
        localisation quality.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored,
        with ``quality`` ``[N]`` in [0, 1], or ``(labels, quality)``; or values in [0, 1] of the
        shape of ``pred``, negative ignored. Unreduced: ``[N, K]``.

    Raises:
        InputError: use_sigmoid=False, activated=True, beta below 0, a class_weight of the wrong
            length, or a target or quality of the wrong shape or type.

    Reference:
        Xiang Li, Wenhai Wang, Lijun Wu, Shuo Chen, Xiaolin Hu, Jun Li, Jinhui Tang, Jian Yang:
        Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object
        Detection. arXiv 2006.04388, 2020.

    Note:
        mmdetection 3.3 sums over the channels before it reduces, so without ``avg_factor`` its mean
        is K times the mean here. With ``avg_factor``, which its heads pass, both agree. It treats a
        negative label as background. Where the score equals the quality, the derivative for beta
        below 1 is infinite in the formula and 0 here.

    Example:
        >>> import torch
        >>> loss = QualityFocalLoss(reduction="none")
        >>> # score 0.5: equal to the quality, then 0.5 below it: 0.5^2 * ln 2
        >>> loss(torch.zeros(2, 1), torch.tensor([0, 0]), quality=torch.tensor([0.5, 1.0]))
        tensor([[0.0000],
                [0.1733]])
    """

    paper = "Li et al., Generalized Focal Loss, arXiv 2006.04388, 2020"
    zero_at_target: ClassVar[bool] = True

    def __init__(
        self,
        *,
        use_sigmoid: bool = True,
        beta: float = 2.0,
        activated: bool = False,
        class_weight: Sequence[float] | None = None,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        require_sigmoid("QualityFocalLoss", use_sigmoid)
        check_argument("beta", beta, beta >= 0, "at least 0")
        if activated:
            raise InputError("activated=True means that pred contains probabilities; pass logits")
        self._store_class_weight(class_weight)
        self.use_sigmoid = use_sigmoid
        self.beta = beta
        self.activated = activated
        # Binary cross-entropy at a soft target is the target's entropy, which is not 0.
        self.zero_at_target = beta > 0

    def unreduced(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of each channel."""
        return quality_focal_loss(
            pred, target, quality, beta=self.beta, class_weight=self._channel_weight
        )
