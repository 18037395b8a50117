"""Seesaw loss for long-tailed classes."""

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    ClassificationLoss,
    check_channels,
    check_class_number,
    check_labels,
    is_valid,
)
from det_losses.losses.core.state import counted_rows, over_ranks
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def seesaw_loss(
    pred: Tensor,
    target: Tensor,
    class_counts: Tensor,
    *,
    p: float = 0.8,
    q: float = 2.0,
    eps: float = 1e-2,
) -> Tensor:
    """Seesaw loss of each row, ``[N]``; see :class:`SeesawLoss`.

    ``class_counts`` is the number of examples of each class so far, ``[K]``; 0 counts as 1.
    """
    check_labels(pred, target)
    pred = upcast(pred)
    valid = is_valid(target, None)
    label = torch.where(valid, target, 0).long().unsqueeze(-1)
    log_counts = class_counts.clamp(min=1).to(pred.dtype).log()
    logits = pred + _log_factors(pred.detach(), label, log_counts, p, q, eps)
    loss = -logits.log_softmax(-1).gather(-1, label).squeeze(-1)
    return torch.where(valid, loss, 0.0)


def _log_factors(
    pred: Tensor, label: Tensor, log_counts: Tensor, p: float, q: float, eps: float
) -> Tensor:
    """Return ln(M C) of each channel, ``[N, K + 1]``; 0 at the label and for the background."""
    num_classes = len(log_counts)
    log_p = pred[..., :-1].log_softmax(-1)
    label_channel = label.clamp(max=num_classes - 1)
    mitigation = p * (log_counts - log_counts[label_channel]).clamp(max=0)
    least = log_p.gather(-1, label_channel).clamp(min=math.log(eps))
    compensation = q * (log_p - least).clamp(min=0)
    channels = torch.arange(num_classes, device=pred.device)
    other_class = (label < num_classes) & (label != channels)
    factors = torch.where(other_class, mitigation + compensation, 0.0)
    return torch.nn.functional.pad(factors, (0, 1))


@MODELS.register_module()
class SeesawLoss(ClassificationLoss):
    r"""Softmax cross-entropy that penalises rare classes less for examples of frequent classes.

    .. math::
        L = -\ln \frac{e^{z_i}}{e^{z_i} + \sum_{j \ne i} M_{ij} C_{ij} e^{z_j}}, \qquad
        M_{ij} = \min\left(1, \frac{N_j}{N_i}\right)^p, \qquad
        C_{ij} = \max\left(1, \frac{\sigma_j}{\sigma_i}\right)^q

    i is the label, :math:`N_j` the number of examples of class j since the start of training, and
    :math:`\sigma` the softmax over the classes. The mitigation factor M reduces the penalty on a
    rare class j from examples of a frequent class i; the compensation factor C increases it if the
    example is misclassified as j. Both are constant in the gradient.

    M and C apply between classes only. Between classes and background the loss is plain
    cross-entropy: the paper balances the classes and uses a separate branch for object against
    background.

    The counts include rows with a weight above 0, of all ranks and of the current batch. They
    change in training mode only.

    Args:
        use_sigmoid: must be False: this is a softmax loss.
        p: exponent of the mitigation factor, at least 0; 0 disables it.
        q: exponent of the compensation factor, at least 0; 0 disables it.
        num_classes: number K of classes, without background.
        eps: lower bound of :math:`\sigma_i`, so that C is finite.
        return_dict: argument of mmdetection; the result is one tensor in either case.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Long-tailed data, such as LVIS, with a softmax classifier.

    Shape:
        pred: logits ``[N, K + 1]``, background last. target: labels ``[N]``, 0..K-1, background
        K, -1 ignored. Unreduced: ``[N]``.

    Raises:
        InputError: use_sigmoid, an argument out of range, logits with the wrong number of channels,
            or a target of the wrong shape or type.

    Reference:
        Jiaqi Wang, Wenwei Zhang, Yuhang Zang, Yuhang Cao, Jiangmiao Pang, Tao Gong, Kai Chen, Ziwei
        Liu, Chen Change Loy, Dahua Lin: Seesaw Loss for Long-Tailed Instance Segmentation. CVPR
        2021, arXiv 2008.10032. The detached factors, the counts of at least 1 and eps follow
        mmdetection, which has the authors' code.

    Note:
        mmdetection's SeesawLoss has K + 2 channels: this formula applies to the K classes of
        positive rows, and a cross-entropy of object against background to two more channels; the
        scores are multiplied. That branch is part of a detector and is not implemented here.
        mmdetection returns the two parts as a dict.

    Example:
        >>> import torch
        >>> loss, logits = SeesawLoss(num_classes=2), torch.zeros(5, 3)
        >>> # 4 of class 0, 1 of class 1: M of (0, 1) is (1/4)^0.8 = 0.33, of (1, 0) it is 1
        >>> loss(logits, torch.tensor([0, 0, 0, 0, 1]), reduction_override="none")
        tensor([0.8458, 0.8458, 0.8458, 0.8458, 1.0986])
        >>> loss.class_counts
        tensor([4, 1])
    """

    paper = "Wang et al., Seesaw Loss, arXiv 2008.10032, 2021"
    activation = "softmax"
    constant_in_gradient = ("the factors M and C",)
    example: ClassVar[Mapping[str, Any]] = {"num_classes": 3}
    class_counts: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        use_sigmoid: bool = False,
        p: float = 0.8,
        q: float = 2.0,
        eps: float = 1e-2,
        return_dict: bool = False,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_class_number(num_classes)
        check_argument("use_sigmoid", use_sigmoid, not use_sigmoid, "False, this is a softmax loss")
        check_argument("p", p, p >= 0, "at least 0")
        check_argument("q", q, q >= 0, "at least 0")
        check_argument("eps", eps, 0 < eps <= 1, "in (0, 1]")
        if return_dict:
            warnings.warn(
                "SeesawLoss: return_dict=True has no effect, the loss is one tensor", stacklevel=2
            )
        self.num_classes = num_classes
        self.use_sigmoid = use_sigmoid
        self.p = p
        self.q = q
        self.eps = eps
        self.return_dict = return_dict
        self.register_buffer("class_counts", torch.zeros(num_classes, dtype=torch.int64))

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each row; in training, count the classes first."""
        check_labels(pred, target)
        check_channels(self, pred, self.num_classes + 1)
        if self.training:
            self._count(target, counted_rows(pred[..., 0], weight) & is_valid(target, None))
        return seesaw_loss(pred, target, self.class_counts, p=self.p, q=self.q, eps=self.eps)

    @torch.no_grad()
    def _count(self, labels: Tensor, counted: Tensor) -> None:
        found = self.class_counts.new_zeros(self.num_classes + 1)
        index = labels.long().clamp(0, self.num_classes)
        found = found.scatter_add(0, index.flatten(), counted.flatten().long())
        # Not in place: a compiled backward pass recomputes M from the tensor of the forward pass.
        self.class_counts = self.class_counts + over_ranks(found)[:-1]
