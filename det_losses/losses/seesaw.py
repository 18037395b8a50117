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


@MODELS.register_module()
class SeesawLoss(ClassificationLoss):
    r"""Softmax cross-entropy in which frequent classes push rare ones down less.

    .. math::
        L = -\ln \frac{e^{z_i}}{e^{z_i} + \sum_{j \ne i} M_{ij} C_{ij} e^{z_j}}, \qquad
        M_{ij} = \min\left(1, \frac{N_j}{N_i}\right)^p, \qquad
        C_{ij} = \max\left(1, \frac{\sigma_j}{\sigma_i}\right)^q

    i is the label, :math:`N_j` the number of examples of class j since training began, and
    :math:`\sigma` the softmax over the classes. The mitigation factor M lowers the penalty that a
    rare class j gets from examples of a frequent class i; the compensation factor C raises it
    again where the example is mistaken for j. Both are constant in the gradient.

    M and C stand between classes only. Against the background the loss is plain cross-entropy:
    the paper balances the classes and leaves objects against background to a branch of its own.

    The numbers are those of rows of weight above 0, of all ranks, with the present batch. They
    grow in training mode only.

    Args:
        use_sigmoid: only False; this is a softmax loss.
        p: exponent of the mitigation, at least 0; 0 leaves it out.
        q: exponent of the compensation, at least 0; 0 leaves it out.
        num_classes: number K of classes, without background.
        eps: the smallest :math:`\sigma_i`, so that C stays finite.
        return_dict: mmdetection's; the result is one tensor in either case.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Data in which a few classes have most of the boxes, as LVIS has.

    Shape:
        pred: logits ``[N, K + 1]``, background last. target: labels ``[N]``, 0..K-1, background
        K, negative ignored. Unreduced: ``[N]``.

    Raises:
        ValueError: use_sigmoid, an argument out of range, logits of another number of classes, or
            a target of another shape or type.

    Reference:
        Jiaqi Wang, Wenwei Zhang, Yuhang Zang, Yuhang Cao, Jiangmiao Pang, Tao Gong, Kai Chen, Ziwei
        Liu, Chen Change Loy, Dahua Lin: Seesaw Loss for Long-Tailed Instance Segmentation. CVPR
        2021, arXiv 2008.10032. Constant factors, a count of at least 1 and eps are those of the
        authors' code.

    Note:
        mmdetection's SeesawLoss has K + 2 channels: it is this formula on the K classes of positive
        rows, beside a cross-entropy of object against background in two more channels, whose scores
        multiply. That branch belongs to a detector and is not built here; mmdetection returns the
        two parts as a dict.

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
        """Return the loss of each row; in training the classes are counted first."""
        check_labels(pred, target)
        check_channels(self, pred, self.num_classes + 1)
        pred = upcast(pred)
        valid = is_valid(target, None)
        label = torch.where(valid, target, 0).long().unsqueeze(-1)
        counted = counted_rows(pred[..., 0], weight) & valid
        logits = pred + self._log_factors(pred.detach(), label, self._count(label, counted))
        loss = -logits.log_softmax(-1).gather(-1, label).squeeze(-1)
        return torch.where(valid, loss, 0.0)

    @torch.no_grad()
    def _count(self, label: Tensor, counted: Tensor) -> Tensor:
        if self.training:
            found = self.class_counts.new_zeros(self.num_classes + 1)
            found = found.scatter_add(0, label.flatten(), counted.flatten().long())
            # A new tensor: M is computed again in a compiled backward, from the old one.
            self.class_counts = self.class_counts + over_ranks(found)[:-1]
        return self.class_counts.clamp(min=1)

    def _log_factors(self, pred: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Return ln(M C) of each channel, ``[N, K + 1]``; 0 at the label and for the background."""
        number = counts.to(pred.dtype).log()
        log_p = pred[..., :-1].log_softmax(-1)
        own = label.clamp(max=self.num_classes - 1)
        mitigation = self.p * (number - number[own]).clamp(max=0)
        least = log_p.gather(-1, own).clamp(min=math.log(self.eps))
        compensation = self.q * (log_p - least).clamp(min=0)
        channels = torch.arange(self.num_classes, device=pred.device)
        between = (label < self.num_classes) & (label != channels)
        factors = torch.where(between, mitigation + compensation, 0.0)
        return torch.nn.functional.pad(factors, (0, 1))
