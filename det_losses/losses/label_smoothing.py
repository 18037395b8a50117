"""Cross-entropy to smoothed labels, of the softmax or of each channel's sigmoid."""

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    ClassificationLoss,
    check_labels,
    is_valid,
    sparse_channels,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def label_smoothing_loss(
    pred: Tensor, target: Tensor, *, use_sigmoid: bool = False, epsilon: float = 0.1
) -> Tensor:
    """Cross-entropy to smoothed labels; see :class:`LabelSmoothingLoss`."""
    check_argument("epsilon", epsilon, 0 <= epsilon <= 1, "in [0, 1]")
    check_labels(pred, target)
    pred = upcast(pred)
    if use_sigmoid:
        return sparse_channels(
            pred,
            target,
            negative=lambda x: _cross_entropy_to(x, epsilon / 2),
            positive=lambda x, _: _cross_entropy_to(x, 1 - epsilon / 2),
        )
    valid = is_valid(target, None)
    label = torch.where(valid, target, 0).long().unsqueeze(-1)
    log_p = pred.log_softmax(-1)
    own = log_p.gather(-1, label).squeeze(-1)
    loss = -(1 - epsilon) * own - epsilon * log_p.mean(-1)
    return torch.where(valid, loss, 0.0)


def _cross_entropy_to(logits: Tensor, target: float) -> Tensor:
    return -target * F.logsigmoid(logits) - (1 - target) * F.logsigmoid(-logits)


@MODELS.register_module()
class LabelSmoothingLoss(ClassificationLoss):
    r"""Cross-entropy to labels mixed with a uniform distribution over the channels.

    .. math::
        L = -\sum_c q_c \ln p_c, \qquad q_c = (1 - \epsilon) [c = y] + \frac{\epsilon}{C}

    p is the softmax over the C channels, including the background. With ``use_sigmoid`` each
    channel is a binary decision, so its target is :math:`1 - \epsilon / 2` at the label and
    :math:`\epsilon / 2` elsewhere.

    Args:
        use_sigmoid: sigmoid of each channel instead of softmax.
        epsilon: weight of the uniform distribution, in [0, 1]; 0 is cross-entropy.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Label noise, or an overconfident softmax classifier, as in the RoI head of Faster R-CNN. In
        a dense head, the background rows dominate.

    Shape:
        pred: logits ``[N, K + 1]``, background last; with ``use_sigmoid`` ``[N, K]``. target:
        labels ``[N]``, 0..K-1, background K, -1 ignored. Unreduced: ``[N]``; with
        ``use_sigmoid`` ``[N, K]``.

    Raises:
        InputError: epsilon out of range, or a target of the wrong shape or type.

    Reference:
        Christian Szegedy, Vincent Vanhoucke, Sergey Ioffe, Jonathon Shlens, Zbigniew Wojna:
        Rethinking the Inception Architecture for Computer Vision. arXiv 1512.00567, 2015,
        Section 7.

    Note:
        The softmax form equals ``torch.nn.functional.cross_entropy`` with ``label_smoothing``; the
        sigmoid form has the targets of YOLOv5's ``smooth_BCE``. With a sigmoid the target of every
        background anchor is :math:`\epsilon / 2`: choose a small epsilon.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 0.0]]).log_softmax(-1)  # -ln p = 0.3133 and 1.3133
        >>> LabelSmoothingLoss(epsilon=0.2)(logits, torch.tensor([0]))  # weights 0.9 and 0.1
        tensor(0.4133)
    """

    paper = "Szegedy et al., Rethinking the Inception Architecture, arXiv 1512.00567, 2015"
    zero_at_target = False

    def __init__(
        self,
        *,
        use_sigmoid: bool = False,
        epsilon: float = 0.1,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_argument("epsilon", epsilon, 0 <= epsilon <= 1, "in [0, 1]")
        self.use_sigmoid = use_sigmoid
        self.epsilon = epsilon
        self.activation = "sigmoid" if use_sigmoid else "softmax"

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each row, or with ``use_sigmoid`` of each channel."""
        return label_smoothing_loss(
            pred, target, use_sigmoid=self.use_sigmoid, epsilon=self.epsilon
        )
