"""FCOS's head with the losses of the config: distances, or GFL's distribution for each side."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.fcos import (
    FCOSClassificationHead,
    FCOSHead,
    FCOSRegressionHead,
)

from det_losses.generators import generators_kept
from det_losses.losses.core.state import mean_over_ranks
from det_losses.models.detector import matched_targets
from det_losses.models.slots import (
    adopt,
    at_positives,
    box_quality,
    box_slot_loss,
    extra_inputs,
)
from det_losses.models.transform import image_sizes
from det_losses.tensors import upcast


class LinearCoder(BoxLinearCoder):
    """torchvision's FCOS box coder with the method names of BoxCoder.

    Deltas are the distances l, t, r, b from the anchor's center to the box's sides, in units of the
    anchor's side.
    """

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Return the deltas of boxes ``[N, 4]`` with respect to anchors ``[N, 4]``."""
        return self.encode(proposals, reference_boxes)

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Return the boxes ``[N, 4]`` of deltas with respect to anchors."""
        return self.decode(rel_codes, boxes)


def centerness(deltas: Tensor) -> Tensor:
    r"""Return the centerness of locations, ``[N]``, from their distances ``[N, 4]``.

    .. math:: \sqrt{\frac{\min(l, r)}{\max(l, r)} \cdot \frac{\min(t, b)}{\max(t, b)}}

    FCOS, 1904.01355, equation 3.
    """
    low, high = torch.aminmax(deltas.unflatten(-1, (2, 2)), dim=-2)
    return (low / high).prod(-1).sqrt()


def expected_distance(logits: Tensor, sides: int = 4) -> Tensor:
    r"""Return the mean of the distribution of each side, in units of the anchor's side.

    .. math:: \hat y = \sum_{i=0}^{n} i \, \mathrm{softmax}(x)_i

    Generalized Focal Loss, 2006.04388, section 3.

    Args:
        logits: ``[..., sides (n + 1)]``; half precision is cast to float32.
        sides: number of distributions per row.
    """
    probabilities = upcast(logits).unflatten(-1, (sides, -1)).softmax(-1)
    # Not a matrix product, which autocast would compute in half precision.
    return (probabilities * torch.arange(probabilities.shape[-1]).to(probabilities)).sum(-1)


class BoxHead(FCOSRegressionHead):
    """torchvision's regression head, optionally without centerness or with distributions.

    Args:
        centerness: whether the head has the centerness branch.
        reg_max: n of the distributions over 0..n; with None the head outputs distances, as in
            torchvision.
        **kwargs: torchvision's arguments.
    """

    reg_max: int | None = None

    def __init__(self, *, centerness: bool, reg_max: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reg_max = reg_max
        if not centerness:
            self.bbox_ctrness = None
        if reg_max is not None:
            with generators_kept():  # keep the random numbers of later layers unchanged
                channels = 4 * (reg_max + 1)
                self.bbox_reg = nn.Conv2d(self.bbox_reg.in_channels, channels, 3, padding=1)
                nn.init.normal_(self.bbox_reg.weight, std=0.01)
                nn.init.zeros_(self.bbox_reg.bias)

    @classmethod
    def of(cls, built: FCOSRegressionHead) -> "BoxHead":
        """Return a head with the layers of torchvision's, which the caller has built."""
        head = cls.__new__(cls)
        adopt(head, built)
        return head

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Return ``bbox_regression`` and the optional outputs for the anchors of all levels.

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


class Head(FCOSHead):
    """torchvision's head with the losses of the config.

    Args:
        classification_head: the branch of the class logits.
        regression_head: the branch of the boxes.
        losses: the losses by slot; without ``loss_centerness``, a detection's score is its class
            score.
        centerness_target: see :class:`~det_losses.models.FCOS`.
        box_weight: see :class:`~det_losses.models.FCOS`.
    """

    def __init__(
        self,
        classification_head: FCOSClassificationHead,
        regression_head: BoxHead,
        losses: nn.ModuleDict,
        centerness_target: str = "centerness",
        box_weight: str = "uniform",
    ) -> None:
        nn.Module.__init__(self)
        self.losses = dict(losses.items())  # a plain dict keeps them out of the state_dict
        self.centerness_target, self.box_weight = centerness_target, box_weight
        self.box_coder = LinearCoder()
        self.classification_head, self.regression_head = classification_head, regression_head

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Return the outputs of both branches by name.

        torchvision scores by ``sqrt(sigmoid(cls_logits) sigmoid(bbox_ctrness))``. Without a loss of
        centerness, the class logits are returned as ``bbox_ctrness`` too: ``sqrt(p p)`` is p.
        """
        outputs = {"cls_logits": self.classification_head(x), **self.regression_head(x)}
        if "loss_centerness" not in self.losses:
            outputs["bbox_ctrness"] = outputs["cls_logits"]
        return outputs

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return the losses of the batch, with one call per loss.

        Class and centerness losses are sums divided by the number of positives. Box and
        distribution losses are means over the positives, weighted by ``box_weight``.
        """
        matched = torch.stack(matched_idxs)
        positive = torch.where(matched >= 0)
        background = self.classification_head.num_classes
        labels, boxes = matched_targets(targets, matched, positive, background)
        outputs = {name: output[positive] for name, output in head_outputs.items()}
        positives = _Positives(self.box_coder, outputs, boxes, anchors[0][positive[1]])
        count = mean_over_ranks((matched >= 0).sum(), least=1)
        found = {"loss_cls": self._class_loss(head_outputs["cls_logits"], labels, positives, count)}
        weight, total = None, count
        if self.box_weight != "uniform":
            weight = getattr(positives, self.box_weight)
            total = mean_over_ranks(weight.sum())
        found["loss_bbox"] = box_slot_loss(
            self.losses["loss_bbox"],
            *positives.pairs,
            offers={
                "image_size": lambda: image_sizes(targets)[positive[0]],
                "logits": lambda: outputs["cls_logits"],
                "labels": lambda: labels[positive],
            },
            weight=weight,
            avg_factor=total,
        )
        if "loss_centerness" in self.losses:
            found["loss_centerness"] = self.losses["loss_centerness"](
                outputs["bbox_ctrness"],
                getattr(positives, self.centerness_target)[:, None],
                avg_factor=count,
            )
        if "loss_dfl" in self.losses:
            reg_max = self.regression_head.reg_max
            found["loss_dfl"] = self.losses["loss_dfl"](
                outputs["bbox_distribution"].reshape(-1, reg_max + 1),
                positives.distances.clamp(0, reg_max).flatten(),
                weight=None if weight is None else weight.repeat_interleave(4),
                avg_factor=4 * total,  # one row per side
            )
        return found

    def _class_loss(
        self, logits: Tensor, labels: Tensor, positives: "_Positives", count: Tensor
    ) -> Tensor:
        loss, labels = self.losses["loss_cls"], labels.flatten()
        quality = {"quality": lambda: at_positives(positives.iou, labels < logits.shape[-1])}
        return loss(logits.flatten(0, 1), labels, avg_factor=count, **extra_inputs(loss, quality))


class _Positives:
    """Quantities of a batch's positives, ``[N]`` or ``[N, 4]``, without gradient."""

    def __init__(
        self, coder: LinearCoder, outputs: dict[str, Tensor], boxes: Tensor, anchors: Tensor
    ) -> None:
        self.pairs = (coder, outputs["bbox_regression"], boxes, anchors)
        self._logits = outputs["cls_logits"]

    @cached_property
    def iou(self) -> Tensor:
        """IoU of the predicted box with its ground truth."""
        return box_quality(*self.pairs)

    @cached_property
    def distances(self) -> Tensor:
        """Distances from the anchor's center to the sides of the ground truth, in anchor sides."""
        coder, _, boxes, anchors = self.pairs
        return coder.encode_single(boxes, anchors)

    @cached_property
    def centerness(self) -> Tensor:
        """Centerness of the location in its ground truth."""
        return centerness(self.distances)

    @cached_property
    def score(self) -> Tensor:
        """Highest class score."""
        return upcast(self._logits.detach()).sigmoid().amax(-1)
