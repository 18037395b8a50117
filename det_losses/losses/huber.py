"""Huber loss."""

import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import ElementwiseBoxLoss
from det_losses.registry import MODELS
from det_losses.tensors import aligned


def huber_loss(pred: Tensor, target: Tensor, *, delta: float = 1.0) -> Tensor:
    """Huber loss of each element; see :class:`HuberLoss`."""
    check_argument("delta", delta, delta > 0, "above 0")
    return F.huber_loss(*aligned(pred, target), delta=delta, reduction="none")


@MODELS.register_module()
class HuberLoss(ElementwiseBoxLoss):
    r"""Half the squared error up to ``delta``, linear with slope ``delta`` above.

    .. math::
        L = \begin{cases} x^2 / 2 & x \le \delta \\ \delta (x - \delta / 2) & \text{otherwise}
        \end{cases}, \qquad x = |\hat{x} - x^*|

    This is delta times Smooth L1 with beta = delta.

    Args:
        delta: error at which the quadratic part ends, above 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Like Smooth L1, but delta sets both the largest slope and the error at which it is reached.

    Shape:
        pred, target: ``[N, 4]`` encoded deltas; any common shape is accepted. Unreduced: the shape
        of ``pred``.

    Raises:
        InputError: delta is not positive, or the shapes of pred and target differ.

    Reference:
        Peter J. Huber: Robust Estimation of a Location Parameter. Annals of Mathematical
        Statistics 35(1), 1964.

    Example:
        >>> import torch
        >>> HuberLoss(delta=0.5)(torch.tensor([[2.25, 0, 0, 0]]), torch.zeros(1, 4))
        tensor(0.2500)
    """

    paper = "Huber, Robust Estimation of a Location Parameter, 1964"

    def __init__(
        self, *, delta: float = 1.0, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_argument("delta", delta, delta > 0, "above 0")
        self.delta = delta

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each coordinate."""
        return huber_loss(pred, target, delta=self.delta)
