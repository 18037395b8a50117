"""Normalized Gaussian Wasserstein distance loss."""

import torch
from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import PairLoss
from det_losses.registry import MODELS
from det_losses.tensors import safe_sqrt


def nwd_loss(pred: Tensor, target: Tensor, *, constant: float = 12.8) -> Tensor:
    """NWD loss of each box, ``[N]``; see :class:`NWDLoss`."""
    check_argument("constant", constant, constant > 0, "above 0")
    return _of_pair(box_pair(pred, target), constant)


def _of_pair(pair: BoxPair, constant: float) -> Tensor:
    distance = safe_sqrt(pair.center_distance2 + (pair.dw2 + pair.dh2) / 4)
    return 1 - torch.exp(-distance / constant)


@MODELS.register_module()
class NWDLoss(PairLoss):
    r"""Wasserstein distance of the boxes as Gaussian distributions, on a scale of pixels.

    .. math::
        L = 1 - e^{-W_2 / C}, \qquad
        W_2^2 = \Delta x^2 + \Delta y^2 + \frac{(w - w_g)^2 + (h - h_g)^2}{4}

    :math:`W_2` is the distance of Gaussians with the boxes' centres as means and half their sizes
    as standard deviations.

    Args:
        constant: C, in pixels, above 0; the loss is 0.63 at this distance. The paper uses the mean
            size of the objects of its dataset; 12.8 is the default of the authors' code.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        For tiny objects, where a shift of a few pixels leaves no overlap.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        As for overlapping boxes. The gradient is almost 0 beyond several C.

    Raises:
        InputError: a constant that is not above 0, or mismatched shapes.

    Reference:
        Jinwang Wang, Chang Xu, Wen Yang, Lei Yu: A Normalized Gaussian Wasserstein Distance for
        Tiny Object Detection. arXiv 2110.13389, 2021.

    Note:
        The loss depends on the scale in pixels: it changes if image and boxes are resized. The
        gradient of identical boxes is 0. The loss has no IoU term and cannot be wrapped.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[6.0, 8, 16, 18]])
        >>> NWDLoss(constant=10.0)(pred, target)  # equal sizes, centres 10 apart: 1 - 1/e
        tensor(0.6321)
    """

    paper = "Wang et al., Normalized Gaussian Wasserstein Distance, arXiv 2110.13389, 2021"
    invariances = ("translation", "mirror")

    def __init__(
        self, *, constant: float = 12.8, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_argument("constant", constant, constant > 0, "above 0")
        self.constant = constant

    def of_pair(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each box, ``[N]``."""
        return _of_pair(pair, self.constant)
