"""FCOS's head with the losses of the config."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead

from det_losses.models.detector import image_sizes
from det_losses.models.fcos_boxes import BoxHead, LinearCoder, centerness
from det_losses.models.slots import asked_for, at_positives, box_quality, box_slot_loss
from det_losses.tensors import upcast


class Head(FCOSHead):
    """torchvision's head with the losses given; they stay outside its parameters."""

    def __init__(
        self,
        in_channels: int,
        num_slots: int,
        losses: nn.ModuleDict,
        norm: Callable[[int], nn.Module],
        num_convs: int,
        centerness_target: str,
        box_weight: str,
        reg_max: int | None,
    ) -> None:
        nn.Module.__init__(self)
        self.losses = dict(losses.items())  # a plain dict: no submodule, no key in the state_dict
        self.num_slots, self.reg_max = num_slots, reg_max
        self.centerness_target, self.box_weight = centerness_target, box_weight
        self.box_coder = LinearCoder()
        self.classification_head = FCOSClassificationHead(
            in_channels, 1, num_slots, num_convs, norm_layer=norm
        )
        self.regression_head = BoxHead(
            in_channels=in_channels,
            num_anchors=1,
            num_convs=num_convs,
            norm_layer=norm,
            centerness="loss_centerness" in losses,
            reg_max=reg_max,
        )

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Return the outputs of both branches by name."""
        return {"cls_logits": self.classification_head(x), **self.regression_head(x)}

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return the losses of the batch, each from one call of its loss.

        Those of classes and centre-ness are sums divided by the number of positives; those of
        boxes and distributions are means over the positives, weighted as ``box_weight`` says.
        """
        matched = torch.stack(matched_idxs)
        positive = matched >= 0
        labels, boxes = self._targets(targets, matched)
        outputs = {name: output[positive] for name, output in head_outputs.items()}
        positives = _Positives(self.box_coder, outputs, boxes, torch.stack(anchors)[positive])
        count = positive.sum().clamp(min=1)
        found = {"loss_cls": self._class_loss(head_outputs["cls_logits"], labels, positives, count)}
        weight, total = None, count
        if self.box_weight != "uniform":
            weight = getattr(positives, self.box_weight)
            total = weight.sum()
        found["loss_bbox"] = box_slot_loss(
            self.losses["loss_bbox"],
            *positives.pairs,
            offers={
                "image_size": lambda: image_sizes(targets)[torch.where(positive)[0]],
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
            found["loss_dfl"] = self.losses["loss_dfl"](
                outputs["bbox_distribution"].reshape(-1, self.reg_max + 1),
                positives.distances.clamp(0, self.reg_max).flatten(),
                weight=None if weight is None else weight.repeat_interleave(4),
                avg_factor=4 * total,  # a row for each side
            )
        return found

    def _class_loss(
        self, logits: Tensor, labels: Tensor, positives: "_Positives", count: Tensor
    ) -> Tensor:
        loss, labels = self.losses["loss_cls"], labels.flatten()
        quality = {"quality": lambda: at_positives(positives.iou, labels < self.num_slots)}
        return loss(logits.flatten(0, 1), labels, avg_factor=count, **asked_for(loss, quality))

    def _targets(
        self, targets: Sequence[dict[str, Tensor]], matched: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the label of each place, ``[B, A]``, and the box of each positive, ``[N, 4]``."""
        labels = torch.full_like(matched, self.num_slots)
        boxes = []
        for own, target, row in zip(labels, targets, matched, strict=True):
            chosen = row[row >= 0]
            own[row >= 0] = target["labels"][chosen]
            boxes.append(target["boxes"][chosen])
        return labels, torch.cat(boxes)


class _Positives:
    """What is known of the positives of a batch, each ``[N]`` or ``[N, 4]``, without gradient."""

    def __init__(
        self, coder: LinearCoder, outputs: dict[str, Tensor], boxes: Tensor, anchors: Tensor
    ) -> None:
        self.pairs = (coder, outputs["bbox_regression"], boxes, anchors)
        self._logits = outputs["cls_logits"]

    @cached_property
    def iou(self) -> Tensor:
        """Of the predicted box with its ground truth."""
        return box_quality(*self.pairs)

    @cached_property
    def distances(self) -> Tensor:
        """From the anchor's centre to the sides of the ground truth, in anchors' sides."""
        coder, _, boxes, anchors = self.pairs
        return coder.encode_single(boxes, anchors)

    @cached_property
    def centerness(self) -> Tensor:
        """Of the place in its ground truth."""
        return centerness(self.distances)

    @cached_property
    def score(self) -> Tensor:
        """The highest class score."""
        return upcast(self._logits.detach()).sigmoid().amax(-1)
