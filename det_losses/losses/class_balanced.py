"""Class-balanced loss: rows weighted by the inverse effective number of samples of their class."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from det_losses.errors import InputError
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.build import build_loss
from det_losses.losses.core.classification import ClassificationLoss, check_labels
from det_losses.registry import MODELS


def class_balanced_weight(class_counts: Sequence[int], beta: float) -> Tensor:
    """Return inverse effective numbers of samples, ``[K]``, scaled to mean 1."""
    n = torch.tensor(class_counts, dtype=torch.float64)
    # (1 - beta^n) / (1 - beta) tends to n as beta tends to 1.
    inverse = 1 / n if beta == 1 else (1 - beta) / (1 - beta**n)
    return inverse / inverse.mean()


@MODELS.register_module()
class ClassBalanced(ClassificationLoss):
    r"""Weights a classification loss by the inverse effective number of samples of the label.

    .. math::
        L_{CB} = w_y L, \qquad
        w_c = \frac{K}{\sum_j 1 / E_j} \frac{1}{E_c}, \qquad
        E_c = \frac{1 - \beta^{n_c}}{1 - \beta}

    :math:`n_c` is the number of objects of class c in the training set. The weight of a row's label
    applies to all its channels. The weights have mean 1 over the classes. Background rows have
    weight 1.

    Args:
        loss: a classification loss: a name, a config or a loss module.
        class_counts: number of objects of each class in the training set, K numbers of at least 1.
        beta: in [0, 1]. 0 gives equal weights, 1 the inverse of the counts; the paper tries 0.9 to
            0.9999.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Classes with very different, known frequencies; wraps FocalLoss or CrossEntropyLoss.

    Shape:
        pred: logits as the wrapped loss takes them. target: labels ``[N]``, 0..K-1, background K,
        -1 ignored. Unreduced: as the wrapped loss.

    Raises:
        InputError: class_counts is empty or contains a number below 1, beta is out of range, the
            wrapped loss is not a classification loss or has its own loss_weight, reduction or
            avg_non_ignore, the number of classes differs from the number of counts, or the target
            is not labels.

    Reference:
        Yin Cui, Menglin Jia, Tsung-Yi Lin, Yang Song, Serge Belongie: Class-Balanced Loss Based on
        Effective Number of Samples. arXiv 1901.05555, 2019.

    Note:
        The paper covers image classification, which has no background class; the background weight
        of 1 is a choice of this package. ultralytics 8.4.190 (``cls_pw``) instead weights each
        class channel in all rows by a power of its inverse count. For that, use the argument
        ``class_weight`` of the sigmoid losses.

    Example:
        >>> import torch
        >>> loss = ClassBalanced("CrossEntropyLoss", class_counts=[30, 10], beta=1.0)
        >>> loss.class_weight  # 1/30 and 1/10, scaled to mean 1
        tensor([0.5000, 1.5000], dtype=torch.float64)
        >>> loss(torch.zeros(1, 3), torch.tensor([1]))  # 1.5 ln 3
        tensor(1.6479)
    """

    paper = "Cui et al., Class-Balanced Loss, arXiv 1901.05555, 2019"
    example: ClassVar[Mapping[str, Any]] = {"loss": "FocalLoss", "class_counts": [50, 20, 5]}
    class_weight: Tensor

    def __init__(
        self,
        loss: str | Mapping[str, Any] | nn.Module,
        *,
        class_counts: Sequence[int],
        beta: float = 0.999,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        inner = build_loss(loss)
        _check_wrapped(inner)
        check_argument("beta", beta, 0 <= beta <= 1, "in [0, 1]")
        enough = len(class_counts) > 0 and min(class_counts) >= 1
        check_argument("class_counts", class_counts, enough, "numbers of at least 1")
        self.loss = inner
        self.class_counts = class_counts
        self.beta = beta
        self.activation = inner.activation
        self.inputs = inner.inputs
        self.constant_in_gradient = inner.constant_in_gradient
        self.zero_at_target = inner.zero_at_target
        weight = class_balanced_weight(class_counts, beta)
        self.register_buffer("class_weight", weight, persistent=False)

    def unreduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """Return the wrapped loss, times the weight of each row's label."""
        if not isinstance(target, Tensor):
            raise InputError(
                "ClassBalanced takes labels as target: pass the quality as quality=..."
            )
        check_labels(pred, target)
        classes = pred.shape[-1] - (self.activation == "softmax")
        if classes != len(self.class_counts):
            raise InputError(
                f"class_counts must have one entry per class: {len(self.class_counts)} given, pred "
                f"has {classes} classes"
            )
        loss = self.loss.unreduced(pred, target, weight, **inputs)
        table = torch.cat([self.class_weight, self.class_weight.new_ones(1)]).to(loss.dtype)
        factor = table[target.long().clamp(0, classes)]
        return loss * (factor.unsqueeze(-1) if loss.dim() > target.dim() else factor)

    def unreduced_shape(self, pred: Tensor) -> torch.Size:
        """As the wrapped loss."""
        return self.loss.unreduced_shape(pred)


def _check_wrapped(inner: nn.Module) -> None:
    name = type(inner).__name__
    if not isinstance(inner, ClassificationLoss):
        raise InputError(f"ClassBalanced wraps a classification loss, which {name} is not")
    if inner.loss_weight != 1 or inner.reduction != "mean":
        raise InputError(
            "ClassBalanced: give loss_weight and reduction to ClassBalanced; those of the wrapped "
            f"{name} have no effect"
        )
    if getattr(inner, "avg_non_ignore", False):
        raise InputError(f"ClassBalanced: avg_non_ignore of the wrapped {name} has no effect")
