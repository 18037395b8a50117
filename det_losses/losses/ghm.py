"""Gradient harmonizing mechanism: examples weigh what their gradient's density leaves them."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import Loss, check_argument, reduce_loss
from det_losses.losses.core.box import ElementwiseBoxLoss
from det_losses.losses.core.classification import (
    ClassificationLoss,
    is_dense,
    is_valid,
    require_sigmoid,
)
from det_losses.losses.core.state import RunningMean, counted_rows, over_ranks
from det_losses.registry import MODELS
from det_losses.tensors import aligned, upcast


class _HarmonizedLoss(Loss):
    """A loss whose elements weigh N over the density of their gradient's norm.

    A subclass gives the loss, the gradient's norm and which elements are examples.

    Attributes:
        own_mean: ``mean`` divides by the sum of the examples' sample weights.
    """

    own_mean: ClassVar[bool] = True
    constant_in_gradient = ("the harmonizing parameter beta",)

    def _start(self, bins: int, momentum: float) -> None:
        whole = isinstance(bins, int) and bins > 0
        check_argument("bins", bins, whole, "a whole number above 0")
        check_argument("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
        self.bins = bins
        self.momentum = momentum
        self.counts = RunningMean(1 - momentum, (bins,)) if momentum else None

    def elements(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the plain loss, the gradient's norm in [0, 1], and what is not ignored."""
        raise NotImplementedError

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return beta times the plain loss of each element; in training the counts move."""
        loss, norm, valid = self.elements(pred, target)
        counted = counted_rows(loss, weight) & valid
        with torch.no_grad():
            beta = self._beta(norm.detach(), counted)
        return torch.where(valid, beta * loss, 0.0)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **inputs: Any,
    ) -> Tensor:
        """Compute the loss; the mean is over the examples, whatever ``avg_factor`` is."""
        reduction = reduction_override or self.reduction
        if reduction != "mean":
            return super().forward(pred, target, weight, avg_factor, reduction, **inputs)
        loss = super().forward(pred, target, weight, None, "none", **inputs)
        reduce_loss(loss, reduction, avg_factor)  # for its errors
        weight = upcast(torch.ones_like(loss) if weight is None else weight)
        weight = self.align_weight(weight, pred).expand_as(loss)
        examples = torch.where(self._valid(pred, target), weight, 0.0).sum()
        return loss.sum() / torch.where(examples > 0, examples, 1.0)

    def _valid(self, pred: Tensor, target: Tensor) -> Tensor:
        return torch.ones((), dtype=torch.bool, device=pred.device)

    def _beta(self, norm: Tensor, counted: Tensor) -> Tensor:
        """N / (bins R) for elements of a bin that holds R of the N examples."""
        place = (norm * self.bins).long().clamp(0, self.bins - 1)
        found = torch.zeros(self.bins, dtype=torch.int64, device=norm.device)
        found = found.scatter_add(0, place.flatten(), counted.flatten().long())
        if self.training:
            found = over_ranks(found)
        batch = found.to(norm)
        held = batch
        if self.counts is not None:
            # Evaluation may meet a bin that training left nearly empty.
            mean = self.counts(batch, batch.sum() > 0)
            held = torch.maximum(mean, (1 - self.momentum) * batch)
        beta = batch.sum() / (self.bins * torch.where(held > 0, held, 1.0))
        return beta[place]


@MODELS.register_module()
class GHMCLoss(_HarmonizedLoss, ClassificationLoss):
    r"""Binary cross-entropy whose examples weigh less, the more others have the same gradient.

    .. math::
        L = \frac{1}{N} \sum_i \beta_i L_{CE}(p_i, y_i), \qquad
        \beta_i = \frac{N}{M R(g_i)}, \qquad g_i = |p_i - y_i|

    :math:`p` is the sigmoid of a channel, M the number of bins of [0, 1], and :math:`R(g_i)` the
    number of the N examples whose gradient norm g lies in the bin of :math:`g_i`. So the very many
    easy examples and the outliers, which crowd at both ends, count little. beta is constant in the
    gradient. An example is a channel of a row that is not ignored and has a weight above 0.

    The mean is the paper's for every ``avg_factor``: the sum over N, or with sample weights s
    :math:`\sum s \beta L / \sum s`. An ``avg_factor``, such as a head's number of positives, has no
    effect, as in mmdetection; divided by it, the loss would be N over positives times too large.
    ``sum`` and ``none`` give beta L. R and N are those of all ranks in training.

    Args:
        bins: number M of bins.
        momentum: with :math:`\alpha` above 0, R is the mean
            :math:`S^{(t)} = \alpha S^{(t-1)} + (1 - \alpha) R^{(t)}` over the batches. The paper
            does not say where S starts: here the first batches count alike until their weight has
            fallen to :math:`1 - \alpha`. It moves in training mode only.
        use_sigmoid: sigmoid of each channel; only True.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Dense heads, in the place of the focal loss: the balance follows the data, without gamma and
        alpha.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, negative ignored;
        or values in [0, 1] of the shape of ``pred``. Unreduced: ``[N, K]``.

    Raises:
        ValueError: bins or momentum out of range, use_sigmoid=False, or a target of another shape
            or type.

    Reference:
        Buyu Li, Yu Liu, Xiaogang Wang: Gradient Harmonized Single-stage Detector. AAAI, arXiv
        1811.05181, 2019.

    Note:
        mmdetection calls it GHMC. It divides by the number of bins that are not empty instead of
        by M, starts S at 0, so that the first batches weigh more, and moves only the bins that the
        batch fills.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[-3.0], [-3.0], [-3.0], [0.0]])
        >>> target = torch.tensor([1, 1, 1, 0])
        >>> # two of ten bins are filled; each counts with its own mean: (0.0486 + ln 2) / 10
        >>> GHMCLoss()(pred, target)
        tensor(0.0742)
    """

    paper = "Li et al., Gradient Harmonized Single-stage Detector, arXiv 1811.05181, 2019"
    activation = "sigmoid"

    def __init__(
        self,
        *,
        bins: int = 10,
        momentum: float = 0.0,
        use_sigmoid: bool = True,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self._start(bins, momentum)
        require_sigmoid("GHMCLoss", use_sigmoid)
        self.use_sigmoid = use_sigmoid

    def elements(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return cross-entropy and |p - y| of each channel."""
        valid = self._valid(pred, target)
        pred = upcast(pred)
        if not is_dense(pred, target):
            target = target.unsqueeze(-1) == torch.arange(pred.shape[-1], device=pred.device)
        target = target.to(pred.dtype).clamp(min=0)
        loss = F.binary_cross_entropy_with_logits(pred, target, reduction="none")
        return loss, (pred.sigmoid() - target).abs(), valid

    def _valid(self, pred: Tensor, target: Tensor) -> Tensor:
        valid = is_valid(target, None)
        return valid if target.shape == pred.shape else valid.unsqueeze(-1)


@MODELS.register_module()
class GHMRLoss(_HarmonizedLoss, ElementwiseBoxLoss):
    r"""A smooth L1 whose examples weigh less, the more others have the same gradient.

    .. math::
        L = \frac{1}{N} \sum_i \beta_i \left(\sqrt{d_i^2 + \mu^2} - \mu\right), \qquad
        \beta_i = \frac{N}{M R(g_i)}, \qquad g_i = \left|\frac{d_i}{\sqrt{d_i^2 + \mu^2}}\right|

    :math:`d` is the error of a delta, M the number of bins of [0, 1], and :math:`R(g_i)` the number
    of the N examples whose gradient norm g lies in the bin of :math:`g_i`. So outliers, which crowd
    at 1, count little. beta is constant in the gradient. An example is a coordinate of weight above
    0.

    The mean is the paper's for every ``avg_factor``: the sum over N, or with sample weights s
    :math:`\sum s \beta L / \sum s`. An ``avg_factor`` has no effect, as in mmdetection. ``sum``
    and ``none`` give beta L. R and N are those of all ranks in training.

    Args:
        mu: where the loss turns from a square into a line, above 0.
        bins: number M of bins.
        momentum: with :math:`\alpha` above 0, R is the mean
            :math:`S^{(t)} = \alpha S^{(t-1)} + (1 - \alpha) R^{(t)}` over the batches. The paper
            does not say where S starts: here the first batches count alike until their weight has
            fallen to :math:`1 - \alpha`. It moves in training mode only.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Box regression with outliers, in the place of Smooth L1.

    Shape:
        pred, target: ``[N, 4]`` encoded deltas, without unit; any common shape is taken.
        Unreduced: the same shape.

    Raises:
        ValueError: mu, bins or momentum out of range, or shapes that do not fit.

    Reference:
        Buyu Li, Yu Liu, Xiaogang Wang: Gradient Harmonized Single-stage Detector. AAAI, arXiv
        1811.05181, 2019.

    Note:
        mmdetection calls it GHMR. It divides by the number of bins that are not empty instead of
        by M, starts S at 0, so that the first batches weigh more, and moves only the bins that the
        batch fills.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([0.0, 0, 0, 3]), torch.tensor([0.0, 0, 0, -1])
        >>> GHMRLoss(mu=3.0)(pred, target)  # d 4 alone in its bin: beta 4/10, sqrt(16 + 9) - 3 = 2
        tensor(0.2000)
    """

    paper = "Li et al., Gradient Harmonized Single-stage Detector, arXiv 1811.05181, 2019"
    monotone_in_distance = False

    def __init__(
        self,
        *,
        mu: float = 0.02,
        bins: int = 10,
        momentum: float = 0.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self._start(bins, momentum)
        check_argument("mu", mu, mu > 0, "above 0")
        self.mu = mu

    def elements(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the authentic smooth L1 and its gradient's norm of each coordinate."""
        valid = self._valid(pred, target)
        pred, target = aligned(pred, target)
        error = pred - target
        length = torch.sqrt(error**2 + self.mu**2)
        return length - self.mu, (error / length).abs(), valid
