"""Federated loss: cross-entropy over the classes of the batch and a random sample of others."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from det_losses.losses.binary_cross_entropy import binary_cross_entropy_loss
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    ClassificationLoss,
    check_channels,
    check_class_number,
    check_labels,
    is_label,
)
from det_losses.losses.core.state import counted_rows, of_first_rank, over_ranks
from det_losses.registry import MODELS


def federated_loss(pred: Tensor, target: Tensor, selected: Tensor) -> Tensor:
    """Sigmoid cross-entropy of the selected classes, ``[N, K]``; see :class:`FederatedLoss`.

    ``selected`` marks the classes that count, bool ``[K]``; the others have loss 0.
    """
    return torch.where(selected, binary_cross_entropy_loss(pred, target), 0.0)


def sample_classes(present: Tensor, sampling_weight: Tensor, number: Tensor | int) -> Tensor:
    """Return the classes present plus random others, ``number`` in total, as bool ``[K]``.

    The others are drawn without replacement in proportion to ``sampling_weight``, ``[K]``, with
    torch's default generator of the device, that of rank 0 for all ranks. A class of weight 0 is
    never drawn.
    """
    # Sorting Exp(1) / weight draws without replacement: Efraimidis and Spirakis, 2006.
    drawn = of_first_rank(torch.empty_like(sampling_weight).exponential_())
    keys = drawn / sampling_weight
    keys = torch.where(present, -1.0, keys)
    rank = keys.argsort().argsort()
    return present | ((rank < number) & (sampling_weight > 0))


@MODELS.register_module()
class FederatedLoss(ClassificationLoss):
    r"""Sigmoid cross-entropy over the classes of the batch and a random sample of the others.

    .. math::
        L_c = [c \in S] \left( -y_c \ln \sigma(x_c) - (1 - y_c) \ln (1 - \sigma(x_c)) \right),
        \qquad P(c) \propto n_c^{power}

    S contains the classes that occur as labels in the batch. Further classes are drawn without
    replacement with probability P until S has ``num_sampled`` classes; the background counts as one
    if it occurs. So a class is a negative in few batches only, a rare class in fewer than a
    frequent one. :math:`n_c` is the number of training images that contain class c.

    S is drawn in training mode with torch's default generator, for the batch of all ranks. In
    evaluation mode all classes count. Rows of weight 0 and ignored rows are not considered for S.

    Args:
        num_classes: number K of classes, without background.
        class_counts: number of training images with each class, K numbers of at least 0; with None
            all classes have equal probability.
        num_sampled: size of S, at least 1.
        power: exponent of the counts, at least 0; 0 draws uniformly.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. detectron2 divides the sum by the number of
            rows: pass it as ``avg_factor``, as the RoI head does.
        loss_weight: factor on the result.

    Use:
        Data with many classes that are not annotated exhaustively in each image, such as LVIS, with
        a head that scores by sigmoid.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored.
        Unreduced: ``[N, K]``.

    Raises:
        InputError: an argument out of range, logits with the wrong number of channels, or a target
            of the wrong shape or type.

    Reference:
        Xingyi Zhou, Vladlen Koltun, Philipp Kraehenbuehl: Probabilistic two-stage detection. arXiv
        2103.07461, 2021. Sampling and defaults are those of detectron2's FastRCNNOutputLayers with
        ``use_fed_loss``: 50 classes, power 0.5.

    Note:
        detectron2's head has a channel for the background, which its loss drops; here there is
        none.

    Example:
        >>> import torch
        >>> loss = FederatedLoss(num_classes=3, num_sampled=1, reduction="none")
        >>> loss(torch.zeros(1, 3), torch.tensor([1]))  # only the class in the batch counts
        tensor([[0.0000, 0.6931, 0.0000]])
    """

    paper = "Zhou et al., Probabilistic two-stage detection, arXiv 2103.07461, 2021"
    activation = "sigmoid"
    example: ClassVar[Mapping[str, Any]] = {"num_classes": 3}
    sampling_weight: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        num_sampled: int = 50,
        power: float = 0.5,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_class_number(num_classes)
        counted = class_counts is None or (
            len(class_counts) == num_classes and min(class_counts) >= 0
        )
        expected = f"num_classes={num_classes} numbers of at least 0, or None"
        check_argument("class_counts", class_counts, counted, expected)
        whole = isinstance(num_sampled, int) and num_sampled > 0
        check_argument("num_sampled", num_sampled, whole, "an integer above 0")
        check_argument("power", power, power >= 0, "at least 0")
        self.num_classes = num_classes
        self.class_counts = class_counts
        self.num_sampled = num_sampled
        self.power = power
        counts = torch.ones(num_classes) if class_counts is None else torch.tensor(class_counts)
        self.register_buffer("sampling_weight", counts.float() ** power, persistent=False)

    def select(self, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Draw the classes that count for these labels, bool ``[K]``."""
        counted = counted_rows(target, None if weight is None else weight.amax(-1))
        found = (is_label(target, self.num_classes + 1) & counted.unsqueeze(-1)).flatten(0, -2)
        found = over_ranks(found.sum(0)) > 0
        drawn = self.num_sampled - found[-1].long()
        return sample_classes(found[:-1], self.sampling_weight, drawn)

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel; in training, of the selected classes."""
        check_labels(pred, target)
        check_channels(self, pred, self.num_classes)
        if self.training:
            return federated_loss(pred, target, self.select(target, weight))
        return binary_cross_entropy_loss(pred, target)
