"""Poly-1 cross-entropy: softmax cross-entropy with a changed first polynomial coefficient."""

from collections.abc import Sequence

import torch
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    ClassificationLoss,
    channel_weight,
    check_labels,
    label_log_probability,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def poly_cross_entropy_loss(
    pred: Tensor, target: Tensor, *, eps1: float = -1.0, class_weight: Tensor | None = None
) -> Tensor:
    """Poly-1 cross-entropy of each row, ``[N]``; see :class:`PolyCrossEntropyLoss`."""
    _check(eps1)
    check_labels(pred, target)
    pred = upcast(pred)
    weight = channel_weight(class_weight, pred)
    log_pt, label, valid = label_log_probability(pred, target)
    loss = -log_pt - eps1 * torch.expm1(log_pt)  # expm1(ln p_t) = p_t - 1
    if weight is not None:
        loss = loss * weight[label]
    return torch.where(valid, loss, 0.0)


@MODELS.register_module()
class PolyCrossEntropyLoss(ClassificationLoss):
    r"""Softmax cross-entropy whose first polynomial coefficient is changed by ``eps1``: Poly-1.

    .. math:: L = -\ln p_t + \epsilon_1 (1 - p_t)

    :math:`p_t` is the softmax probability of the label. Cross-entropy expands to
    :math:`\sum_j (1 - p_t)^j / j`; Poly-1 changes the first coefficient from 1 to
    :math:`1 + \epsilon_1`.

    Args:
        eps1: added to the first coefficient, at least -1; 0 is cross-entropy. The default is the
            paper's value for detection; its value for ImageNet is 2.
        class_weight: factor on the rows of each label, background last; None means 1.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Instead of CrossEntropyLoss in the classifier of two-stage detectors, if one more
        hyper-parameter can be tuned. An eps1 below 0 reduces the gradient, most for nearly correct
        examples; above 0 it increases it. For sigmoid, see PolyFocalLoss.

    Shape:
        pred: logits ``[N, K + 1]``, background last. target: labels ``[N]``, 0..K-1, background K,
        -1 ignored. Unreduced: ``[N]``.

    Raises:
        InputError: eps1 below -1, a class_weight of the wrong length, or a target of the wrong
            shape or type.

    Reference:
        Zhaoqi Leng, Mingxing Tan, Chenxi Liu, Ekin Dogus Cubuk, Xiaojie Shi, Shuyang Cheng,
        Dragomir Anguelov: PolyLoss: A Polynomial Expansion Perspective of Classification Loss
        Functions. arXiv 2204.12511, 2022. Values of eps1 as optax's ``poly_loss_cross_entropy``
        states them.

    Published:
        Mask R-CNN on COCO, arXiv 2204.12511, Table 1: boxes 49.7, with cross-entropy 47.2 (see the
        paper for the metric).

    Example:
        >>> import torch
        >>> PolyCrossEntropyLoss()(torch.zeros(1, 4), torch.tensor([3]))  # ln 4 - 3/4
        tensor(0.6363)
    """

    paper = "Leng et al., PolyLoss, arXiv 2204.12511, 2022"
    activation = "softmax"

    def __init__(
        self,
        *,
        eps1: float = -1.0,
        class_weight: Sequence[float] | None = None,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        _check(eps1)
        self._store_class_weight(class_weight)
        self.eps1 = eps1

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each row."""
        return poly_cross_entropy_loss(
            pred, target, eps1=self.eps1, class_weight=self._channel_weight
        )


def _check(eps1: float) -> None:
    check_argument("eps1", eps1, eps1 >= -1, "at least -1")
