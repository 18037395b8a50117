"""Dynamic smooth L1 loss."""

import torch
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import ElementwiseBoxLoss
from det_losses.losses.core.state import counted_rows, gathered
from det_losses.registry import MODELS
from det_losses.tensors import aligned

SMALLEST = 1e-15  # a median below this leaves beta unchanged, as in mmdetection


@MODELS.register_module()
class DynamicSmoothL1Loss(ElementwiseBoxLoss):
    r"""A smooth L1 whose beta follows the errors of the most accurate proposals.

    .. math::
        L = \begin{cases} x^2 / (2 \beta) & x < \beta \\ x - \beta / 2 & \text{otherwise}
        \end{cases}, \qquad
        \beta = \min\left(\beta_0, \operatorname*{median}_{t = 1 \dots C} e_t\right)

    with :math:`x = |\hat{x} - x^*|`. :math:`e_t` is the k-th smallest error of the proposals in
    batch t. The error of a proposal is the mean absolute value of its first two target deltas,
    those of the centre. beta is updated every C batches. It falls as proposals improve in training,
    so the gradient of small errors rises.

    Only rows with weight above 0 count, and only in training mode. A batch is that of all
    ranks. Batches without such rows are not counted.

    Args:
        k: rank of the error, counted from the smallest, at least 1; with fewer proposals the
            largest error is used. The paper has 10 per image; its code pools the 2 images of a
            device.
        interval: the number C of batches between updates, at least 1.
        beta: :math:`\beta_0`, the initial and largest beta, above 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        The second stage of Faster R-CNN, whose deltas are scaled by (10, 10, 5, 5).

    Shape:
        pred, target: ``[N, 4]`` encoded deltas; any common shape is accepted. Unreduced: the shape
        of ``pred``.

    Raises:
        InputError: an argument out of range, or the shapes of pred and target differ.

    Reference:
        Hongkai Zhang, Hong Chang, Bingpeng Ma, Naiyan Wang, Xilin Chen: Dynamic R-CNN: Towards High
        Quality Object Detection via Dynamic Training. arXiv 2004.06002, 2020. The error, the upper
        median and the defaults are those of the authors' code (hkzhang95/DynamicRCNN). Dynamic
        R-CNN also adapts the assigner's IoU threshold, which is not part of this loss.

    Example:
        >>> import torch
        >>> loss = DynamicSmoothL1Loss(k=1, interval=1)
        >>> pred, target = torch.tensor([[0.0, 0, 0, 0]]), torch.tensor([[0.5, 0.3, 0, 0]])
        >>> loss(pred, target), loss.current_beta  # beta 1: (0.25 + 0.09) / 2 / 4; then 0.4
        (tensor(0.0425), tensor(0.4000))
    """

    paper = "Zhang et al., Dynamic R-CNN, arXiv 2004.06002, 2020"
    current_beta: Tensor
    errors: Tensor
    collected: Tensor

    def __init__(
        self,
        *,
        k: int = 20,
        interval: int = 100,
        beta: float = 1.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        whole = "a whole number of at least 1"
        check_argument("k", k, isinstance(k, int) and k >= 1, whole)
        check_argument("interval", interval, isinstance(interval, int) and interval >= 1, whole)
        check_argument("beta", beta, beta > 0, "above 0")
        self.k = k
        self.interval = interval
        self.beta = beta
        self.register_buffer("current_beta", torch.tensor(float(beta)))
        self.register_buffer("errors", torch.zeros(interval))
        self.register_buffer("collected", torch.zeros((), dtype=torch.int64))

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each coordinate; in training, then record the errors."""
        pred, target = aligned(pred, target)
        beta = self.current_beta.to(pred.dtype)
        x = (pred - target).abs()
        quadratic = torch.minimum(x, beta)
        loss = quadratic**2 / (2 * beta) + (x - quadratic)
        if self.training:
            self._record(target, counted_rows(target, weight).any(-1))
        return loss

    @torch.no_grad()
    def _record(self, target: Tensor, counted: Tensor) -> None:
        """Store the k-th smallest error of this batch; update beta after ``interval`` batches."""
        error, present = self._kth_error(target.detach(), counted)
        place = torch.arange(self.interval, device=target.device) == self.collected
        # New tensors: a compiled backward pass may recompute from the old ones.
        errors = torch.where(place & present, error.to(self.errors.dtype), self.errors)
        collected = self.collected + present.long()
        full = collected == self.interval
        median = errors.sort().values[self.interval // 2]
        changes = full & (median >= SMALLEST)
        new = torch.clamp(median, max=self.beta)
        self.current_beta = torch.where(changes, new, self.current_beta)
        self.errors = errors
        self.collected = torch.where(full, 0, collected)

    def _kth_error(self, target: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the k-th smallest error and whether there is any, over all ranks."""
        error = target[..., :2].abs().mean(-1)
        error = torch.where(counted, error, torch.inf).flatten()
        error = torch.nn.functional.pad(error, (0, self.k), value=torch.inf)  # at least k
        smallest = gathered(error.sort().values[: self.k]).sort().values
        number = smallest.isfinite().sum()
        rank = (number.clamp(max=self.k) - 1).clamp(min=0)
        kth = smallest.gather(0, rank.reshape(1)).squeeze(0)
        return torch.where(number > 0, kth, 0.0), number > 0
