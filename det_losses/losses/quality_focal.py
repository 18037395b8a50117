"""Quality focal loss: focal loss towards a quality instead of 1."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    QualityLoss,
    quality_channels,
    require_sigmoid,
    safe_power,
    sigmoid_power,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def quality_focal_loss(
    pred: Tensor, target: Tensor, quality: Tensor | None = None, *, beta: float = 2.0
) -> Tensor:
    """Quality focal loss of each channel, ``[N, K]``; see :class:`QualityFocalLoss`."""
    check_argument("beta", beta, beta >= 0, "at least 0")

    def negative(x: Tensor) -> Tensor:
        return -sigmoid_power(x, beta) * F.logsigmoid(-x)

    def positive(x: Tensor, y: Tensor) -> Tensor:
        # Near 1 the difference is taken of the complements, which are the small numbers there.
        gap = torch.where(y > 0.5, (-x).sigmoid() - (1 - y), y - x.sigmoid()).abs()
        return safe_power(gap, beta) * F.binary_cross_entropy_with_logits(x, y, reduction="none")

    return quality_channels(upcast(pred), target, quality, negative, positive)


@MODELS.register_module()
class QualityFocalLoss(QualityLoss):
    r"""Focal loss whose target at the label's channel is the quality of the box.

    .. math:: L = -|y - \sigma|^\beta \left( (1 - y) \ln (1 - \sigma) + y \ln \sigma \right)

    :math:`y` is the quality (the IoU of the predicted box with its ground truth) at the label's
    channel and 0 elsewhere. The factor fades a channel as its score nears the quality, and it
    takes part in the gradient. With quality 1 this is focal loss without alpha. The paper divides
    the sum by the number of positives: pass it as ``avg_factor``.

    Args:
        use_sigmoid: sigmoid of each channel; only True.
        beta: how fast channels near their target fade, at least 0; 0 is binary cross-entropy.
        activated: that pred holds probabilities; only False, give logits.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Dense detectors without a branch of its own for centre-ness or IoU: the class score itself
        ranks boxes by how well they fit.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, negative ignored,
        with ``quality`` ``[N]`` in [0, 1], or ``(labels, quality)``; or values in [0, 1] of the
        shape of ``pred``, negative ignored. Unreduced: ``[N, K]``.

    Raises:
        ValueError: use_sigmoid=False, activated=True, beta below 0, or a target or quality of
            another shape or type.

    Reference:
        Xiang Li, Wenhai Wang, Lijun Wu, Shuo Chen, Xiaolin Hu, Jun Li, Jinhui Tang, Jian Yang:
        Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object
        Detection. arXiv 2006.04388, 2020.

    Note:
        mmdetection sums over the channels before it reduces, so that without ``avg_factor`` its
        mean is K times this one; with ``avg_factor``, as its heads call it, they agree. It takes
        a negative label for background. Where the score equals the quality, a beta below 1 has an
        infinite slope in the formula and gradient 0 here.

    Example:
        >>> import torch
        >>> loss = QualityFocalLoss(reduction="none")
        >>> # the score 0.5 is at the quality, then half away from it: 0.5^2 * ln 2
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
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        require_sigmoid("QualityFocalLoss", use_sigmoid)
        check_argument("beta", beta, beta >= 0, "at least 0")
        if activated:
            raise ValueError("activated=True takes probabilities; QualityFocalLoss needs logits")
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
        return quality_focal_loss(pred, target, quality, beta=self.beta)
