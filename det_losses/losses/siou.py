"""SCYLLA-IoU loss."""

import warnings

import torch
from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS


def siou_loss(pred: Tensor, target: Tensor, *, theta: float = 4.0, eps: float = 1e-7) -> Tensor:
    """SIoU loss of each box, ``[N]``; see :class:`SIoULoss`."""
    check_argument("theta", theta, theta >= 1, "at least 1")
    pair = box_pair(pred, target, eps)
    distance, shape = siou_penalties(pair, theta=theta)
    return 1 - pair.iou + distance + shape


def siou_penalties(pair: BoxPair, *, theta: float) -> tuple[Tensor, Tensor]:
    """Half the distance cost and half the shape cost, each ``[N]``."""
    gamma = 2 - angle_cost(pair)
    distance = (
        2
        - torch.exp(-gamma * pair.dx**2 / pair.hull_w2)
        - torch.exp(-gamma * pair.dy**2 / pair.hull_h2)
    )
    shape = sum((1 - torch.exp(-gap)) ** theta for gap in pair.size_gaps)
    return distance / 2, shape / 2


def angle_cost(pair: BoxPair) -> Tensor:
    """Return Lambda of each box, 2 |dx dy| / (dx^2 + dy^2), from the ratio of the two offsets.

    It is smaller for centres less than eps apart, so that its gradient stays finite.
    """
    dx, dy = pair.dx.abs(), pair.dy.abs()
    ratio = torch.minimum(dx, dy) / torch.maximum(dx, dy).clamp(min=pair.eps)
    return 2 * ratio / (1 + ratio**2)


@MODELS.register_module()
class SIoULoss(IoUFamilyLoss):
    r"""Overlap, centre distance weighted by its direction, and difference of the shapes.

    .. math::
        L = 1 - IoU + \frac{\Delta + \Omega}{2}, \qquad
        \Delta = \sum_{t = x, y} \left(1 - e^{-(2 - \Lambda) \rho_t}\right), \qquad
        \Omega = \sum_{t = w, h} \left(1 - e^{-\omega_t}\right)^\theta

    with :math:`\rho_x = (\Delta x / C_w)^2`, :math:`\rho_y = (\Delta y / C_h)^2`, :math:`\omega_w =
    |w - w_g| / \max(w, w_g)`, and :math:`\omega_h` likewise; :math:`C_w, C_h` are the sides of the
    smallest enclosing box. The angle cost :math:`\Lambda = 1 - 2 \sin^2(\arcsin(|\Delta y| /
    \sigma) - \pi / 4)`, with the distance :math:`\sigma` of the centres, is computed as the
    equivalent :math:`2 |\Delta x \Delta y| / \sigma^2`, whose gradient is finite. It is 0 for
    centres on a horizontal or vertical line and 1 on a diagonal.

    Args:
        theta: exponent of the shape cost, at least 1; larger values reduce the weight of small
            differences. The paper chooses it for each dataset; mmdetection always uses 4.
        neg_gamma: accepted for configs of mmdetection. The sign is always the paper's, which is
            mmdetection's with True; False, mmdetection's default, raises a warning.
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        When a box should first move to the nearest axis of the target and then along it.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The distance cost moves the prediction towards the target; it tends to a constant, so the
        gradient falls with distance.

    Raises:
        InputError: a theta below 1, a negative eps, or mismatched shapes.

    Reference:
        Zhora Gevorgyan: SIoU Loss: More Powerful Learning for Bounding Box Regression.
        arXiv 2205.12740, 2022.

    Note:
        mmdetection's default ``neg_gamma=False`` has the opposite sign in the distance cost: its
        loss falls as a box moves away. With ``neg_gamma=True`` both losses are equal.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> # half overlaps; centres 5 apart in an enclosing box 20 wide; widths 10 and 20
        >>> SIoULoss()(pred, target)  # 1/2 + (1 - exp(-2/16) + (1 - exp(-1/2))^4) / 2
        tensor(0.5707)
    """

    paper = "Gevorgyan, SIoU Loss, arXiv 2205.12740, 2022"

    def __init__(
        self,
        *,
        theta: float = 4.0,
        neg_gamma: bool = True,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("theta", theta, theta >= 1, "at least 1")
        if not neg_gamma:
            warnings.warn(
                "SIoULoss computes the paper's distance cost, as mmdetection does with "
                "neg_gamma=True; its neg_gamma=False rewards distance and has no effect here",
                stacklevel=2,
            )
        self.theta = theta
        self.neg_gamma = neg_gamma

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """Half the distance cost and half the shape cost."""
        return siou_penalties(pair, theta=self.theta)
