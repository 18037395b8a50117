"""L1 loss of boxes in units of the image."""

import torch
from torch import Tensor

from det_losses.losses.core.box import ElementwiseBoxLoss
from det_losses.registry import MODELS
from det_losses.tensors import aligned


@MODELS.register_module()
class NormalizedL1Loss(ElementwiseBoxLoss):
    r"""Absolute error of centre and size, divided by the size of the image.

    .. math::
        L = \left(\frac{|d_x|}{W}, \frac{|d_y|}{H}, \frac{|w - w_g|}{W}, \frac{|h - h_g|}{H}\right)

    :math:`d_x, d_y` are the offsets of the centres, W and H the width and height of the image. The
    L1 term of DETR and of the detectors after it.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Beside an IoU loss, as in DETR: SumLoss of this at weight 5 and GIoULoss at weight 2. Alone
        it counts an error in pixels the same for a small and a large box.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. image_size: ``[N, 2]``, width and
        height in pixels. Unreduced: ``[N, 4]``; with the number of boxes as ``avg_factor`` the mean
        is DETR's.

    Disjoint:
        No difference: the gradient of each coordinate is constant.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: no image_size.

    Reference:
        Nicolas Carion, Francisco Massa, Gabriel Synnaeve, Nicolas Usunier, Alexander Kirillov,
        Sergey Zagoruyko: End-to-End Object Detection with Transformers. arXiv 2005.12872, 2020,
        the L1 term of its box loss.

    Note:
        YOLO26 in ultralytics 8.4.190 trains the four sides instead, by the mean of their absolute
        errors in units of the image, beside CIoU and in the place of distribution focal loss.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> size = torch.tensor([[100.0, 50]])  # the centre is 5 px off, the width 10 px
        >>> NormalizedL1Loss(reduction="none")(pred, target, image_size=size)
        tensor([[0.0500, 0.0000, 0.1000, 0.0000]])
    """

    space = "decoded"
    paper = "Carion et al., DETR, arXiv 2005.12872, 2020"
    inputs = ("image_size",)

    def unreduced(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        *,
        image_size: Tensor,
    ) -> Tensor:
        """Return the loss of centre and size of each box, ``[N, 4]``."""
        return normalized_l1_loss(pred, target, image_size)


def normalized_l1_loss(pred: Tensor, target: Tensor, image_size: Tensor) -> Tensor:
    """L1 loss of boxes in units of the image, ``[N, 4]``; see :class:`NormalizedL1Loss`."""
    pred, target = aligned(pred, target)
    if pred.shape[-1:] != (4,):
        raise ValueError(f"boxes must have 4 values (x1, y1, x2, y2), got shape {list(pred.shape)}")
    if image_size.shape != (*pred.shape[:-1], 2):
        raise ValueError(
            f"image_size must hold width and height of each box's image, "
            f"{[*pred.shape[:-1], 2]}, got {list(image_size.shape)}"
        )
    first, second = (pred - target).split(2, dim=-1)
    image_size = image_size.to(pred.dtype)
    return torch.cat([(first + second) / 2 / image_size, (second - first) / image_size], -1).abs()
