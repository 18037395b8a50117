"""RoIAlign for a CPU: pooled features and gradients as weighted sums of rows."""

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import _setup_scales

from det_losses.tensors import is_traced


class RoIAlign(MultiScaleRoIAlign):
    """torchvision's RoIAlign over the levels of a pyramid, in less than half its time on a CPU.

    A pooled feature is the mean of bilinear samples, that is a weighted sum of the features at a
    few positions (16 for 2 x 2 samples). torchvision visits these positions once per channel. Here
    the features of all levels and images are one table with a row of channels per position, and a
    row is added at once, forward and backward. Values and gradients equal torchvision's to
    rounding. Without gradients, on other devices and in exports, torchvision's operator is used.
    """

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Return the pooled features of all boxes, ``[N, C, height, width]``."""
        levels = [x[name] for name in self.featmap_names if name in x]
        plain = levels[0].device.type == "cpu" and levels[0].dtype in (torch.float32, torch.float64)
        used = plain and torch.is_grad_enabled() and self.sampling_ratio > 0 and not is_traced()
        if not used or not sum(map(len, boxes)):
            return super().forward(x, boxes, image_shapes)
        if self.scales is None:
            self.scales, self.map_levels = _setup_scales(
                levels, image_shapes, self.canonical_scale, self.canonical_level
            )
        table = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels])
        rows, weights = self._samples(levels, boxes)
        pooled = F.embedding_bag(
            rows.flatten(0, 2), table, per_sample_weights=weights.flatten(0, 2), mode="sum"
        )
        return pooled.unflatten(0, rows.shape[:3]).permute(0, 3, 1, 2)

    def _samples(self, levels: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return rows of the table and their weights, ``[N, height, width, positions]`` each."""
        starts = itertools.accumulate(len(each) * each[0, 0].numel() for each in levels[:-1])
        numbers = zip([0, *starts], self.scales, levels, strict=True)
        facts = [(start, scale, *level.shape[2:]) for start, scale, level in numbers]
        of_box = torch.tensor(facts, dtype=torch.float64)[self.map_levels(boxes)]
        start, scale, height, width = of_box.unbind(1)
        counts = torch.tensor([len(each) for each in boxes])
        image = torch.arange(len(boxes)).repeat_interleave(counts)
        corners = torch.cat(boxes) * scale[:, None].to(boxes[0].dtype)
        first = (start + image * height * width).long()
        height, width = height.long(), width.long()
        y, weight_y = self._along(corners[:, 1], corners[:, 3], self.output_size[0], height)
        x, weight_x = self._along(corners[:, 0], corners[:, 2], self.output_size[1], width)
        x, weight_x = x[:, None, :, None], weight_x[:, None, :, None]
        y = (first[:, None, None] + y * width[:, None, None])[:, :, None, :, None]
        rows, weights = y + x, weight_y[:, :, None, :, None] * weight_x
        return rows.flatten(3), weights.flatten(3).to(levels[0].dtype)

    def _along(self, low: Tensor, high: Tensor, bins: int, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions on one axis and their weights, ``[N, bins, 2 sampling_ratio]`` each.

        Args:
            low: start of each box, in features.
            high: its end.
            bins: number of pooled features on this axis.
            length: number of features of its level.
        """
        length = length[:, None, None]
        size = ((high - low).clamp(min=1) / bins)[:, None, None]
        offset = (torch.arange(self.sampling_ratio) + 0.5) * size / self.sampling_ratio
        at = low[:, None, None] + torch.arange(bins)[:, None] * size + offset
        inside = (at >= -1) & (at <= length)
        at = at.clamp(min=0).minimum((length - 1).to(at.dtype))
        below = at.long()
        share = at - below
        positions = torch.stack([below, (below + 1).minimum(length - 1)], dim=-1)
        weights = (
            torch.stack([1 - share, share], dim=-1) * (inside / self.sampling_ratio)[..., None]
        )
        return positions.flatten(2), weights.flatten(2)
