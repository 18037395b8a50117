"""Poly-1 focal loss: focal loss with a changed first coefficient of its polynomial."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    ClassificationLoss,
    alpha_pair,
    check_focusing,
    is_dense,
    is_valid,
    soft_terms,
    sparse_channels,
    weigh_channels,
)
from det_losses.losses.core.closed_channels import ChannelTerms
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def poly_focal_loss(
    pred: Tensor,
    target: Tensor,
    *,
    eps1: float = 1.0,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Poly-1 focal loss of each channel, ``[N, K]``; see :class:`PolyFocalLoss`."""
    _check(eps1, gamma, alpha)
    dense = is_dense(pred, target)
    pred = upcast(pred)
    if dense:
        a_pos, a_neg = alpha_pair(alpha)
        y = target.to(pred.dtype).clamp(0, 1)
        alpha_t = a_pos * y + a_neg * (1 - y)
        loss = alpha_t * _polynomial(*soft_terms(pred, y), eps1, gamma)
        loss = torch.where(is_valid(target, None), loss, 0.0)
    else:
        negative, positive = _channel_terms(eps1, gamma, alpha)
        loss = sparse_channels(pred, target, negative, lambda x, _: positive(x))
    return weigh_channels(loss, class_weight)


def _polynomial(log_miss: Tensor, cross_entropy: Tensor, eps1: float, gamma: float) -> Tensor:
    # log_miss is ln(1 - p_t): powers in log space have finite gradients.
    focal = (gamma * log_miss).exp() * cross_entropy
    return focal + eps1 * ((gamma + 1) * log_miss).exp()


def _channel_terms(eps1: float, gamma: float, alpha: float | None) -> ChannelTerms:
    """Return the loss of a channel."""
    a_pos, a_neg = alpha_pair(alpha)

    def positive(x: Tensor) -> Tensor:
        return _polynomial(F.logsigmoid(-x), -F.logsigmoid(x), eps1, gamma)

    return ChannelTerms(lambda x: a_neg * positive(-x), lambda x: a_pos * positive(x))


@MODELS.register_module()
class PolyFocalLoss(ClassificationLoss):
    r"""Focal loss whose first polynomial coefficient is changed by ``eps1``: Poly-1.

    .. math:: L = \alpha_t \left( -(1 - p_t)^\gamma \ln p_t
        + \epsilon_1 (1 - p_t)^{\gamma + 1} \right)

    Focal loss expands to :math:`\sum_j (1 - p_t)^{\gamma + j} / j`; Poly-1 changes the first
    coefficient from 1 to :math:`1 + \epsilon_1`. Per channel :math:`p_t = \sigma(x), \alpha_t =
    \alpha` for the label's channel and :math:`p_t = 1 - \sigma(x), \alpha_t = 1 - \alpha` for the
    others. As for focal loss, pass the number of positives as ``avg_factor``.

    Args:
        eps1: added to the first coefficient, at least -1; 0 is focal loss.
        gamma: focusing parameter, at least 0.
        alpha: weight of positives, in [0, 1]; None disables balancing, as in the paper's formula.
        class_weight: factor on each channel, for positives and negatives; None means 1.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Instead of focal loss, if one more hyper-parameter can be tuned. An eps1 above 0 increases
        the gradient of uncertain examples, below 0 it reduces it. The paper tunes eps1 for each
        task. For softmax, see PolyCrossEntropyLoss.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored;
        or values in [0, 1] of the shape of ``pred``, negative ignored, for which
        :math:`p_t = y \sigma + (1 - y)(1 - \sigma)` as in torchvision's focal loss. Unreduced:
        ``[N, K]``.

    Raises:
        InputError: eps1, gamma or alpha out of range, a class_weight of the wrong length, or a
            target of the wrong shape or type.

    Reference:
        Zhaoqi Leng, Mingxing Tan, Chenxi Liu, Ekin Dogus Cubuk, Xiaojie Shi, Shuyang Cheng,
        Dragomir Anguelov: PolyLoss: A Polynomial Expansion Perspective of Classification Loss
        Functions. arXiv 2204.12511, 2022.

    Note:
        alpha weights the whole polynomial, as in the expansion of alpha-balanced focal loss.

    Example:
        >>> import torch
        >>> PolyFocalLoss()(torch.zeros(1, 1), torch.tensor([0]))  # 0.25 (0.5^2 ln 2 + 0.5^3)
        tensor(0.0746)
    """

    paper = "Leng et al., PolyLoss, arXiv 2204.12511, 2022"
    activation = "sigmoid"

    def __init__(
        self,
        *,
        eps1: float = 1.0,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        class_weight: Sequence[float] | None = None,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        _check(eps1, gamma, alpha)
        self._store_class_weight(class_weight)
        self.eps1 = eps1
        self.gamma = gamma
        self.alpha = alpha

    def channel_terms(self) -> ChannelTerms:
        """The loss of a channel."""
        return _channel_terms(self.eps1, self.gamma, self.alpha)

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel."""
        return poly_focal_loss(
            pred,
            target,
            eps1=self.eps1,
            gamma=self.gamma,
            alpha=self.alpha,
            class_weight=self._channel_weight,
        )


def _check(eps1: float, gamma: float, alpha: float | None) -> None:
    check_argument("eps1", eps1, eps1 >= -1, "at least -1")
    check_focusing(gamma, alpha)
