"""Distribution focal loss: the distance to a box side as a distribution over integers."""

from typing import ClassVar

import torch
from torch import Tensor

from det_losses.errors import InputError
from det_losses.losses.core.base import Loss
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def distribution_focal_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Distribution focal loss of each side, ``[N]``; see :class:`DistributionFocalLoss`."""
    if pred.dim() == 0 or pred.shape[-1] < 2 or target.shape != pred.shape[:-1]:
        raise InputError(
            "pred must be [N, n + 1] with n at least 1, one row for each side of a box, and target "
            f"[N], got {list(pred.shape)} and {list(target.shape)}"
        )
    log_s = upcast(pred).log_softmax(-1)
    largest = pred.shape[-1] - 1
    y = target.detach().to(log_s.dtype).clamp(0, largest)
    # The last interval includes its end: n lies between n - 1 and n.
    left = y.floor().clamp(max=largest - 1)
    index = left.long().unsqueeze(-1)
    log_left = log_s.gather(-1, index).squeeze(-1)
    log_right = log_s.gather(-1, index + 1).squeeze(-1)
    return -(left + 1 - y) * log_left - (y - left) * log_right


@MODELS.register_module()
class DistributionFocalLoss(Loss):
    r"""Cross-entropy to the two integers next to a distance.

    .. math:: L = -\left( (y_{i+1} - y) \ln S_i + (y - y_i) \ln S_{i+1} \right)

    :math:`y` is the distance from the anchor point to one side of the box, in units of the stride;
    :math:`y_i \le y \le y_{i+1}` are the integers next to it and :math:`S` is the softmax over
    0..n. The head decodes the mean of :math:`S` as the distance. The loss is minimal if all
    probability is on these two integers and the mean is :math:`y`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Together with an IoU loss, in a head that predicts each side as a distribution. The spread
        of the distribution expresses uncertainty.

    Shape:
        pred: logits ``[N, n + 1]``, one row for each side of a box. target: distances ``[N]``,
        clamped to [0, n]. weight: ``[N]``. Unreduced: ``[N]``.

    Raises:
        InputError: pred with fewer than two columns, or shapes that do not fit.

    Reference:
        Xiang Li, Wenhai Wang, Lijun Wu, Shuo Chen, Xiaolin Hu, Jun Li, Jinhui Tang, Jian Yang:
        Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object
        Detection. arXiv 2006.04388, 2020.

    Note:
        mmdetection 3.3's function raises an IndexError for a distance of n or more; its heads clamp
        distances below n before they call it.

    Example:
        >>> import torch
        >>> pred = torch.zeros(1, 4)  # each of 0, 1, 2 and 3 has probability 1/4
        >>> DistributionFocalLoss()(pred, torch.tensor([1.3]))  # 0.7 ln 4 + 0.3 ln 4
        tensor(1.3863)
    """

    kind = "distribution"
    paper = "Li et al., Generalized Focal Loss, arXiv 2006.04388, 2020"
    zero_at_target: ClassVar[bool] = False

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each side."""
        return distribution_focal_loss(pred, target)

    def unreduced_shape(self, pred: Tensor) -> torch.Size:
        """One value per side."""
        return pred.shape[:-1]
