"""Equalization loss v2 for long-tailed classes."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    ClassificationLoss,
    check_channels,
    check_class_number,
    check_labels,
    is_valid,
    require_sigmoid,
)
from det_losses.losses.core.state import over_ranks
from det_losses.registry import MODELS
from det_losses.tensors import upcast

# mmdetection's arguments that ask for what is no part of the loss.
_WITHOUT_EFFECT = {
    "vis_grad": "gradients are not drawn",
    "test_with_obj": "scores are not multiplied by an objectness, for which there is no channel",
}


@MODELS.register_module()
class EQLv2Loss(ClassificationLoss):
    r"""Sigmoid cross-entropy that balances the gradients each class got from both sides.

    .. math::
        L_c = -q_c \, y_c \ln \sigma(x_c) - r_c \, (1 - y_c) \ln (1 - \sigma(x_c)), \qquad
        r_c = f(g_c), \quad q_c = 1 + \alpha (1 - f(g_c)), \quad
        f(g) = \frac{1}{1 + e^{-\gamma (g - \mu)}}

    :math:`g_c` is the sum of the absolute gradients that the logits of class c got as positives,
    since training began, over that which they got as negatives; both with the weights q and r. A
    rare class has a small g: its negatives count little and its positives more. All weights are 1
    for a class that has got no gradient yet. They are constant in the gradient.

    The gradients are those of the loss of each row, :math:`q (1 - p)` and :math:`r p`, times its
    sample weight, of all ranks; those of the present batch count from the next one on. They are
    summed in training mode only.

    Args:
        use_sigmoid: sigmoid of each channel; only True.
        class_weight: only None.
        num_classes: number K of classes, without background.
        mu: the ratio g at which f is 1/2.
        alpha: how much more the positives count, at least 0.
        gamma: how steep f is, above 0.
        vis_grad: mmdetection's; has no effect.
        test_with_obj: mmdetection's; has no effect, there is no channel for an objectness.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. The paper divides the sum by the number of
            rows: pass it as ``avg_factor``, as the RoI head does.
        loss_weight: factor on the result.

    Use:
        Data in which a few classes have most of the boxes, as LVIS has, in a head that scores by
        sigmoid.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, negative ignored.
        Unreduced: ``[N, K]``.

    Raises:
        ValueError: use_sigmoid=False, a class_weight, an argument out of range, logits of another
            number of classes, or a target of another shape or type.

    Reference:
        Jingru Tan, Xin Lu, Gang Zhang, Changqing Yin, Quanquan Li: Equalization Loss v2: A New
        Gradient Balance Approach for Long-tailed Object Detection. CVPR 2021, arXiv 2012.08548.

    Note:
        The paper adds a channel for objects of any class, whose weights are 1, and multiplies the
        scores by it; that belongs to a detector and is not built here. mmdetection calls the loss
        EQLV2Loss, has that channel, does not know ignored rows or sample weights, divides by the
        number of rows whatever ``avg_factor`` is, and sums the gradients of each rank alone.

    Example:
        >>> import torch
        >>> loss, logits = EQLv2Loss(num_classes=2, reduction="none"), torch.zeros(2, 2)
        >>> loss(logits, torch.tensor([0, 0]))[0]  # ln 2 to begin with
        tensor([0.6931, 0.6931])
        >>> # class 1 has had negatives only, g = 0: its positives count 1 + 4 times
        >>> loss(logits, torch.tensor([0, 1]))[1]
        tensor([0.6931, 3.4655])
    """

    paper = "Tan et al., Equalization Loss v2, arXiv 2012.08548, 2021"
    activation = "sigmoid"
    constant_in_gradient = ("the weights q and r",)
    example: ClassVar[Mapping[str, Any]] = {"num_classes": 3}
    refused: ClassVar[Mapping[str, str]] = {
        "use_distributed": "gradients are summed over the ranks wherever training is distributed"
    }
    positive_gradient: Tensor
    negative_gradient: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        use_sigmoid: bool = True,
        class_weight: None = None,
        mu: float = 0.8,
        alpha: float = 4.0,
        gamma: float = 12.0,
        vis_grad: bool = False,
        test_with_obj: bool = False,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        require_sigmoid("EQLv2Loss", use_sigmoid)
        check_class_number(num_classes)
        none = "None, q and r are the weights of classes here"
        check_argument("class_weight", class_weight, class_weight is None, none)
        check_argument("alpha", alpha, alpha >= 0, "at least 0")
        check_argument("gamma", gamma, gamma > 0, "above 0")
        self.num_classes = num_classes
        self.use_sigmoid = use_sigmoid
        self.class_weight = class_weight
        self.mu = mu
        self.alpha = alpha
        self.gamma = gamma
        self.vis_grad = vis_grad
        self.test_with_obj = test_with_obj
        for name, reason in _WITHOUT_EFFECT.items():
            if getattr(self, name):
                warnings.warn(f"EQLv2Loss: {name}=True has no effect, {reason}", stacklevel=2)
        self.register_buffer("positive_gradient", torch.zeros(num_classes))
        self.register_buffer("negative_gradient", torch.zeros(num_classes))

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel; in training its gradients are summed."""
        check_labels(pred, target)
        check_channels(self, pred, self.num_classes)
        pred = upcast(pred)
        valid = is_valid(target, None).unsqueeze(-1)
        positive = target.unsqueeze(-1) == torch.arange(self.num_classes, device=pred.device)
        q, r = self._weights(pred.dtype)
        loss = torch.where(positive, q * F.softplus(-pred), r * F.softplus(pred))
        if self.training:
            with torch.no_grad():
                p = pred.detach().sigmoid()
                gradient = torch.where(valid, torch.where(positive, q * (1 - p), r * p), 0.0)
                self._collect(gradient if weight is None else gradient * weight, positive)
        return torch.where(valid, loss, 0.0)

    def _weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return q and r of each class, from the gradients of the batches before."""
        positive, negative = self.positive_gradient.to(dtype), self.negative_gradient.to(dtype)
        known = negative > 0
        ratio = positive / torch.where(known, negative, 1.0)
        r = torch.where(known, torch.sigmoid(self.gamma * (ratio - self.mu)), 1.0)
        return 1 + self.alpha * (1 - r), r

    def _collect(self, gradient: Tensor, positive: Tensor) -> None:
        sides = (torch.where(side, gradient, 0.0) for side in (positive, ~positive))
        total = over_ranks(torch.stack([side.flatten(0, -2).sum(0) for side in sides]))
        # New tensors: q is computed again in a compiled backward, from the old ones.
        self.positive_gradient = self.positive_gradient + total[0].to(self.positive_gradient)
        self.negative_gradient = self.negative_gradient + total[1].to(self.negative_gradient)
