"""L1 loss of boxes in units of the image."""

import torch
from torch import Tensor

from det_losses.errors import InputError
from det_losses.losses.core.box import ElementwiseBoxLoss
from det_losses.registry import MODELS
from det_losses.tensors import aligned


def normalized_l1_loss(pred: Tensor, target: Tensor, image_size: Tensor) -> Tensor:
    """L1 loss of boxes in units of the image, ``[N, 4]``; see :class:`NormalizedL1Loss`."""
    pred, target = aligned(pred, target)
    if pred.shape[-1:] != (4,):
        raise InputError(f"boxes must have 4 values (x1, y1, x2, y2), got shape {list(pred.shape)}")
    if image_size.shape != (*pred.shape[:-1], 2):
        raise InputError(
            f"image_size must contain width and height of each box's image, "
            f"{[*pred.shape[:-1], 2]}, got {list(image_size.shape)}"
        )
    first, second = (pred - target).split(2, dim=-1)
    image_size = image_size.to(pred.dtype)
    return torch.cat([(first + second) / 2 / image_size, (second - first) / image_size], -1).abs()


@MODELS.register_module()
class NormalizedL1Loss(ElementwiseBoxLoss):
    r"""Absolute error of centre and size, divided by the size of the image.

    .. math::
        L = \left(\frac{|d_x|}{W}, \frac{|d_y|}{H}, \frac{|w - w_g|}{W}, \frac{|h - h_g|}{H}\right)

    :math:`d_x, d_y` are the offsets of the centres, W and H width and height of the image. This is
    the L1 term of DETR's box loss.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Together with an IoU loss, as in DETR: a SumLoss of this loss with weight 5 and GIoULoss
        with weight 2. Used alone, an error in pixels counts the same for small and large boxes.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. image_size: ``[N, 2]``, width and
        height in pixels. Unreduced: ``[N, 4]``. With the number of boxes as ``avg_factor``, the
        mean is that of DETR.

    Disjoint:
        As for overlapping boxes: the gradient of each coordinate has a constant magnitude.

    Raises:
        InputError: mismatched shapes.
        InputTypeError: ``image_size`` is missing.

    Reference:
        Nicolas Carion, Francisco Massa, Gabriel Synnaeve, Nicolas Usunier, Alexander Kirillov,
        Sergey Zagoruyko: End-to-End Object Detection with Transformers. arXiv 2005.12872, 2020,
        the L1 term of its box loss.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> size = torch.tensor([[100.0, 50]])  # the centre is off by 5 px, the width by 10 px
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
