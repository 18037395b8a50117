"""What FCOS's box head puts out: four distances, or a distribution for each of them (GFL)."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.fcos import FCOSRegressionHead

from det_losses.generators import generators_kept
from det_losses.tensors import upcast


class LinearCoder(BoxLinearCoder):
    """torchvision's coder of FCOS, called as the coders of the other heads are.

    Deltas are the distances l, t, r, b from the anchor's centre to the box's sides, in units of the
    anchor's side.
    """

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Return the deltas of boxes ``[N, 4]`` with respect to anchors ``[N, 4]``."""
        return self.encode(proposals, reference_boxes)

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Return the boxes ``[N, 4]`` of deltas with respect to anchors."""
        return self.decode(rel_codes, boxes)


def centerness(deltas: Tensor) -> Tensor:
    r"""Return how central a place lies in its box, ``[N]``, from its distances ``[N, 4]``.

    .. math:: \sqrt{\frac{\min(l, r)}{\max(l, r)} \cdot \frac{\min(t, b)}{\max(t, b)}}

    FCOS, 1904.01355, equation 3.
    """
    low, high = torch.aminmax(deltas.unflatten(-1, (2, 2)), dim=-2)
    return (low / high).prod(-1).sqrt()


def expected_distance(logits: Tensor, sides: int = 4) -> Tensor:
    r"""Return the mean of each side's distribution, in units of the anchor's side.

    .. math:: \hat y = \sum_{i=0}^{n} i \, \mathrm{softmax}(x)_i

    Generalized Focal Loss, 2006.04388, section 3.

    Args:
        logits: ``[..., sides (n + 1)]``; half precision is raised to float32.
        sides: number of distributions in a row.
    """
    probabilities = upcast(logits).unflatten(-1, (sides, -1)).softmax(-1)
    # Not a matrix product, which autocast would compute in half precision.
    return (probabilities * torch.arange(probabilities.shape[-1]).to(probabilities)).sum(-1)


class BoxHead(FCOSRegressionHead):
    """torchvision's regression head, without its centre-ness branch or with distributions.

    Args:
        centerness: whether the head has the branch.
        reg_max: n of the distributions over 0..n; None: the head puts out the distances
            themselves, as torchvision's.
        **kwargs: torchvision's arguments.
    """

    def __init__(self, *, centerness: bool, reg_max: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reg_max = reg_max
        if not centerness:
            self.bbox_ctrness = None
        if reg_max is not None:
            with generators_kept():  # no draw after this one shifts
                channels = 4 * (reg_max + 1)
                self.bbox_reg = nn.Conv2d(self.bbox_reg.in_channels, channels, 3, padding=1)
                nn.init.normal_(self.bbox_reg.weight, std=0.01)
                nn.init.zeros_(self.bbox_reg.bias)

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Return ``bbox_regression`` and what else the head has, for the anchors of all levels.

        Shapes: ``bbox_regression`` ``[B, A, 4]``, ``bbox_ctrness`` ``[B, A, 1]``,
        ``bbox_distribution`` (logits) ``[B, A, 4 (n + 1)]``.
        """
        features = [self.conv(level) for level in x]
        raw = _rows(self.bbox_reg(level) for level in features)
        if self.reg_max is None:
            outputs = {"bbox_regression": upcast(raw).relu()}
        else:
            outputs = {"bbox_regression": expected_distance(raw), "bbox_distribution": raw}
        if self.bbox_ctrness is not None:
            outputs["bbox_ctrness"] = _rows(self.bbox_ctrness(level) for level in features)
        return outputs


def _rows(levels: Any) -> Tensor:
    """Turn ``[B, C, H, W]`` of each level into ``[B, A, C]``."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
