"""Gradient harmonizing mechanism: examples weighted by the inverse density of their gradient."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import Loss, check_argument, reduce_loss
from det_losses.losses.core.box import ElementwiseBoxLoss
from det_losses.losses.core.classification import (
    ClassificationLoss,
    is_dense,
    is_label,
    is_valid,
    require_sigmoid,
)
from det_losses.losses.core.state import (
    RunningMean,
    counted_rows,
    mean_over_ranks,
    over_ranks,
)
from det_losses.registry import MODELS
from det_losses.tensors import aligned, upcast


def ghmc_loss(
    pred: Tensor, target: Tensor, bin_weight: Tensor | None = None, *, bins: int = 30
) -> Tensor:
    """GHM-C of each channel, ``[N, K]``; see :class:`GHMCLoss`.

    ``bin_weight`` is the weight beta of each bin, ``[M]``; by default it is computed from this
    batch with ``bins`` bins.
    """
    pred, target, valid = _channel_targets(pred, target)
    loss = F.binary_cross_entropy_with_logits(pred, target, reduction="none")
    return _harmonized(loss, _ghmc_norm(pred, target), valid, bin_weight, bins)


def ghmr_loss(
    pred: Tensor,
    target: Tensor,
    bin_weight: Tensor | None = None,
    *,
    mu: float = 0.02,
    bins: int = 10,
) -> Tensor:
    """GHM-R of each coordinate, the shape of ``pred``; see :class:`GHMRLoss`.

    ``bin_weight`` is the weight beta of each bin, ``[M]``; by default it is computed from this
    batch with ``bins`` bins.
    """
    pred, target = aligned(pred, target)
    error = pred - target
    loss = torch.sqrt(error**2 + mu**2) - mu
    valid = torch.ones_like(error, dtype=torch.bool)
    return _harmonized(loss, _ghmr_norm(error, mu), valid, bin_weight, bins)


def _channel_targets(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits, their targets in [0, 1] and which of them are not ignored, ``[N, K]``."""
    if is_dense(pred, target):
        valid = is_valid(target, None)
    else:
        valid = is_valid(target, None).unsqueeze(-1)
        target = is_label(target, pred.shape[-1])
    pred = upcast(pred)
    return pred, target.to(pred.dtype).clamp(min=0), valid


def _ghmc_norm(pred: Tensor, target: Tensor) -> Tensor:
    return (pred.sigmoid() - target).abs()


def _ghmr_norm(error: Tensor, mu: float) -> Tensor:
    return (error / torch.sqrt(error**2 + mu**2)).abs()


def _harmonized(
    loss: Tensor, norm: Tensor, valid: Tensor, bin_weight: Tensor | None, bins: int
) -> Tensor:
    """Multiply each loss by the weight of the bin of its gradient norm."""
    norm = norm.detach()
    if bin_weight is None:
        counts = _histogram(norm, valid.expand_as(norm), bins).to(norm)
        bin_weight = _bin_weight(counts.sum(), counts)
    index = _bin_index(norm, len(bin_weight))
    return torch.where(valid, bin_weight.to(norm)[index] * loss, 0.0)


def _bin_index(norm: Tensor, bins: int) -> Tensor:
    return (norm * bins).long().clamp(0, bins - 1)


def _histogram(norm: Tensor, counted: Tensor, bins: int) -> Tensor:
    """Return the number of counted examples in each bin of [0, 1]."""
    index = _bin_index(norm, bins)
    counts = torch.zeros(bins, dtype=torch.int64, device=norm.device)
    return counts.scatter_add(0, index.flatten(), counted.flatten().long())


def _bin_weight(examples: Tensor, counts: Tensor) -> Tensor:
    """Return N / (M R) of each bin."""
    return examples / (len(counts) * torch.where(counts > 0, counts, 1.0))


class _HarmonizedLoss(Loss):
    """A loss whose elements are weighted by N over the density of their gradient norm.

    Attributes:
        own_mean: ``mean`` divides by the sum of the examples' sample weights.
    """

    own_mean: ClassVar[bool] = True
    constant_in_gradient = ("the harmonizing parameter beta",)

    def _set_bins(self, bins: int, momentum: float) -> None:
        whole = isinstance(bins, int) and bins > 0
        check_argument("bins", bins, whole, "an integer above 0")
        check_argument("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
        self.bins = bins
        self.momentum = momentum
        self.counts = RunningMean(1 - momentum, (bins,)) if momentum else None

    def gradient_norm(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the gradient norm of each element, in [0, 1]."""
        raise NotImplementedError

    def is_example(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return which elements are not ignored; broadcasts over the unreduced loss."""
        raise NotImplementedError

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **inputs: Any,
    ) -> Tensor:
        """Compute the loss; the mean is over the examples for every ``avg_factor``."""
        reduction = reduction_override or self.reduction
        if reduction != "mean":
            return super().forward(pred, target, weight, avg_factor, reduction, **inputs)
        loss = super().forward(pred, target, weight, None, "none", **inputs)
        reduce_loss(loss, reduction, avg_factor)  # only for its error messages
        weight = upcast(torch.ones_like(loss) if weight is None else weight)
        weight = self.align_weight(weight, pred).expand_as(loss)
        examples = torch.where(self.is_example(pred, target), weight, 0.0).sum()
        if self.training:
            examples = mean_over_ranks(examples)
        return loss.sum() / torch.where(examples > 0, examples, 1.0)

    @torch.no_grad()
    def bin_weight(self, pred: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return the weight beta of each bin, ``[M]``; in training, update the running counts."""
        norm = self.gradient_norm(pred, target)
        counted = counted_rows(norm, weight) & self.is_example(pred, target)
        counts = _histogram(norm, counted, self.bins)
        if self.training:
            counts = over_ranks(counts)
        batch = counts.to(norm)
        running = batch
        if self.counts is not None:
            # In evaluation, a bin that was nearly empty in training may have examples.
            mean = self.counts(batch, batch.sum() > 0)
            running = torch.maximum(mean, (1 - self.momentum) * batch)
        return _bin_weight(batch.sum(), running)


@MODELS.register_module()
class GHMCLoss(_HarmonizedLoss, ClassificationLoss):
    r"""Binary cross-entropy with each example weighted by the inverse density of its gradient norm.

    .. math::
        L = \frac{1}{N} \sum_i \beta_i L_{CE}(p_i, y_i), \qquad
        \beta_i = \frac{N}{M R(g_i)}, \qquad g_i = |p_i - y_i|

    :math:`p` is the sigmoid of a channel, M the number of bins of [0, 1], and :math:`R(g_i)` the
    number of the N examples whose gradient norm g lies in the bin of :math:`g_i`. Easy examples and
    outliers, which concentrate at both ends, are down-weighted. beta is constant in the gradient.
    An example is a channel of a row that is not ignored and has a weight above 0.

    ``mean`` is always the paper's: the sum divided by N, or with sample weights s :math:`\sum s
    \beta L / \sum s`. An ``avg_factor``, such as the number of positives, has no effect, as in
    mmdetection; dividing by it would multiply the loss by N over the number of positives. ``sum``
    and ``none`` give beta L. R and N are summed over all ranks in training.

    Args:
        bins: number M of bins.
        momentum: if :math:`\alpha` is above 0, R is the running mean :math:`S^{(t)} = \alpha
            S^{(t-1)} + (1 - \alpha) R^{(t)}` over the batches. The paper does not define the
            initial S. Here the first batches have equal weight, until that weight has fallen to
            :math:`1 - \alpha`. S is updated in training mode only.
        use_sigmoid: must be True: the loss is defined for the sigmoid only.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Dense heads, instead of focal loss: the balance follows the data, without gamma and alpha.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored;
        or values in [0, 1] of the shape of ``pred``. Unreduced: ``[N, K]``.

    Raises:
        InputError: bins or momentum out of range, use_sigmoid=False, or a target of the wrong shape
            or type.

    Reference:
        Buyu Li, Yu Liu, Xiaogang Wang: Gradient Harmonized Single-stage Detector. AAAI, arXiv
        1811.05181, 2019. The defaults of bins and momentum are those of the authors' RetinaNet
        config (libuyu/GHM_Detection) and of mmdetection's.

    Note:
        The authors' code and mmdetection 3.3 (GHMC) divide by the number of non-empty bins instead
        of M, start S at 0, so the first batches have a larger loss, and update only the bins with
        examples in the batch. The defaults of their constructors are bins=10 and momentum=0.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[-3.0], [-3.0], [-3.0], [0.0]])
        >>> target = torch.tensor([1, 1, 1, 0])
        >>> # two of ten bins have examples; each contributes its mean: (0.0486 + ln 2) / 10
        >>> GHMCLoss(bins=10)(pred, target)
        tensor(0.0742)
    """

    paper = "Li et al., Gradient Harmonized Single-stage Detector, arXiv 1811.05181, 2019"
    activation = "sigmoid"

    def __init__(
        self,
        *,
        bins: int = 30,
        momentum: float = 0.75,
        use_sigmoid: bool = True,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self._set_bins(bins, momentum)
        require_sigmoid("GHMCLoss", use_sigmoid)
        self.use_sigmoid = use_sigmoid

    def gradient_norm(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return |p - y| of each channel."""
        pred, target, _ = _channel_targets(pred, target)
        return _ghmc_norm(pred, target)

    def is_example(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return which channels are not ignored."""
        valid = is_valid(target, None)
        return valid if target.shape == pred.shape else valid.unsqueeze(-1)

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return beta times the cross-entropy of each channel."""
        return ghmc_loss(pred, target, self.bin_weight(pred, target, weight))


@MODELS.register_module()
class GHMRLoss(_HarmonizedLoss, ElementwiseBoxLoss):
    r"""A smooth L1 with each example weighted by the inverse density of its gradient norm.

    .. math::
        L = \frac{1}{N} \sum_i \beta_i \left(\sqrt{d_i^2 + \mu^2} - \mu\right), \qquad
        \beta_i = \frac{N}{M R(g_i)}, \qquad g_i = \left|\frac{d_i}{\sqrt{d_i^2 + \mu^2}}\right|

    :math:`d` is the error of a delta, M the number of bins of [0, 1], and :math:`R(g_i)` the number
    of the N examples whose gradient norm g lies in the bin of :math:`g_i`. Outliers, which
    concentrate at 1, are down-weighted; the loss may fall as an error grows into a bin with more
    examples. beta is constant in the gradient. An example is a coordinate with a weight above 0.

    ``mean`` is always the paper's: the sum divided by N, or with sample weights s :math:`\sum s
    \beta L / \sum s`. An ``avg_factor`` has no effect, as in mmdetection. ``sum`` and ``none`` give
    beta L. R and N are summed over all ranks in training.

    Args:
        mu: error at which the loss changes from quadratic to linear, above 0.
        bins: number M of bins.
        momentum: if :math:`\alpha` is above 0, R is the running mean :math:`S^{(t)} = \alpha
            S^{(t-1)} + (1 - \alpha) R^{(t)}` over the batches. The paper does not define the
            initial S. Here the first batches have equal weight, until that weight has fallen to
            :math:`1 - \alpha`. S is updated in training mode only.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Box regression with outliers, instead of Smooth L1.

    Shape:
        pred, target: ``[N, 4]`` encoded deltas, or any common shape. Unreduced: the same shape.

    Raises:
        InputError: mu, bins or momentum out of range, or shapes that do not fit.

    Reference:
        Buyu Li, Yu Liu, Xiaogang Wang: Gradient Harmonized Single-stage Detector. AAAI, arXiv
        1811.05181, 2019. The defaults of mu, bins and momentum are those of the authors' RetinaNet
        config (libuyu/GHM_Detection).

    Note:
        The authors' code and mmdetection 3.3 (GHMR) divide by the number of non-empty bins instead
        of M, start S at 0, so the first batches have a larger loss, and update only the bins with
        examples in the batch. The default of their constructors is momentum=0.

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
        momentum: float = 0.7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self._set_bins(bins, momentum)
        check_argument("mu", mu, mu > 0, "above 0")
        self.mu = mu

    def gradient_norm(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the norm of the gradient of the authentic smooth L1 of each coordinate."""
        pred, target = aligned(pred, target)
        return _ghmr_norm(pred - target, self.mu)

    def is_example(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return True: no coordinate is ignored."""
        return torch.ones((), dtype=torch.bool, device=pred.device)

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return beta times the authentic smooth L1 of each coordinate."""
        return ghmr_loss(pred, target, self.bin_weight(pred, target, weight), mu=self.mu)
