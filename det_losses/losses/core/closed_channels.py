"""The fast path of sigmoid losses against integer labels: no graph of tensors ``[N, K]``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from det_losses.tracing.trace import elementwise
from det_losses.tracing.traced import UnsupportedOperation

# Logits whose intermediate values fit into a core's cache; on a GPU, into little of its memory.
CHUNK, CHUNK_ON_GPU = 2**18, 2**24
Formula = Callable[[Tensor], Tensor]
Differentiated = Callable[[Tensor, Tensor, float | Tensor], Tensor]


class ChannelTerms(NamedTuple):
    """The loss of logits whose target is 0 or 1, each as a function of the logits alone."""

    negative: Formula
    positive: Formula


@dataclass
class ClosedChannels:
    """One evaluation of a loss, as a function of the logits.

    Attributes:
        terms: the loss of a channel.
        labels: ``[N]``; 0..K-1, background K, negative ones are ignored.
        weights: factors of the channels, ``[K]``, or of rows, ``[N, 1]`` or ``[N, K]``.
        divisor: if given, the result is the sum of all losses divided by this number.
    """

    terms: ChannelTerms
    labels: Tensor
    weights: tuple[Tensor, ...]
    divisor: float | Tensor | None

    @torch.no_grad()
    def compute(self, pred: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, and the gradient of its sum."""
        pred = pred.contiguous()
        gradient = torch.empty_like(pred)
        value = torch.empty_like(pred) if self.divisor is None else None
        totals = []
        terms = [_differentiated(term, pred) for term in self.terms]
        divisor = self.divisor
        if isinstance(divisor, Tensor):
            divisor = divisor.to(pred.dtype)
        seed = 1.0 if divisor is None else 1 / divisor
        size = CHUNK if pred.is_cpu else CHUNK_ON_GPU
        step = max(1, size // max(1, pred.shape[-1]))
        may_ignore = not pred.is_cpu or bool((self.labels < 0).any())
        for start in range(0, len(pred), step):
            rows = slice(start, start + step)
            slope = gradient[rows]
            own = self._chunk(terms, pred[rows], slope, rows, seed, may_ignore)
            if value is None:
                totals.append(own.sum())
            else:
                value[rows] = own
        if value is not None:
            return value, gradient
        return torch.stack(totals).sum() / self.divisor, gradient

    def _chunk(
        self,
        terms: Sequence[Differentiated],
        logits: Tensor,
        slope: Tensor,
        rows: slice,
        seed: float | Tensor,
        may_ignore: bool,
    ) -> Tensor:
        """Return the loss of some rows, and write ``seed`` times its gradient to ``slope``."""
        negative, positive = terms
        labels = self.labels[rows].unsqueeze(-1)
        channel = labels.clamp(0, logits.shape[-1] - 1)
        is_class = labels == channel
        value = negative(logits, slope, seed)
        at_label = logits.gather(-1, channel)
        label_slope = torch.empty_like(at_label)
        label_value = positive(at_label, label_slope, seed)
        for all_channels, own in ((value, label_value), (slope, label_slope)):
            own = torch.where(is_class, own, all_channels.gather(-1, channel))
            all_channels.scatter_(-1, channel, own)
            if may_ignore:
                all_channels.masked_fill_(labels < 0, 0)
            for weight in self.weights:
                all_channels *= weight[rows] if weight.dim() > 1 else weight
        return value


def _differentiated(formula: Formula, x: Tensor) -> Differentiated:
    """Return a function like those of :func:`~det_losses.tracing.trace.elementwise`."""
    if x.is_cpu:
        try:
            return elementwise(formula, x.dtype)
        except (Exception, UnsupportedOperation):  # autograd computes it, or raises the same error
            pass

    def compute(x: Tensor, slope: Tensor, seed: float | Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            value = formula(x)
            slope.copy_(torch.autograd.grad((value * seed).sum(), x)[0])
        return value.detach()

    return compute
