"""Faster R-CNN's two heads, torchvision's own, with the losses of the config."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from det_losses.generators import generators_kept
from det_losses.models.slots import (
    PairCoder,
    asked_for,
    at_positives,
    box_quality,
    box_slot_loss,
)
from det_losses.tensors import upcast


class RPN(RegionProposalNetwork):
    """torchvision's RPN with the losses given; they stay outside its parameters."""

    def __init__(self, rpn: RegionProposalNetwork, losses: nn.ModuleDict) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(rpn.__dict__)  # all that torchvision's constructor has set
        self.box_coder = PairCoder(rpn.box_coder.weights)
        self.losses = dict(losses.items())  # a plain dict: no submodule, no key in the state_dict

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Do as torchvision does, and name the losses by their slots."""
        self.image_sizes = images.image_sizes
        boxes, losses = super().forward(images, features, targets)
        slots = {"loss_objectness": "loss_rpn_cls", "loss_rpn_box_reg": "loss_rpn_bbox"}
        return boxes, {slots[name]: loss for name, loss in losses.items()}

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of the sampled anchors, each divided by their number.

        ``regression_targets`` are the pairs of :class:`PairCoder`, ``[N, 8]`` an image.
        """
        positive, negative = (
            torch.where(torch.cat(masks))[0] for masks in self.fg_bg_sampler(labels)
        )
        sampled = torch.cat([positive, negative])
        # torchvision: 1 is an object. With one class here: 0 is the object, 1 the background.
        targets = 1 - torch.cat(labels)[sampled].to(torch.int64)
        boxes, anchors = torch.cat(regression_targets)[positive].split(4, dim=1)
        pairs = (self.box_coder, pred_bbox_deltas[positive], boxes, anchors)
        logits = objectness.flatten()[:, None]
        loss_cls = self.losses["loss_rpn_cls"]
        quality = {"quality": lambda: at_positives(box_quality(*pairs), targets == 0)}
        avg_factor = max(1, sampled.numel())
        with generators_kept():  # a loss that draws leaves the RoI head's sampling alone
            value_cls = loss_cls(
                logits[sampled], targets, avg_factor=avg_factor, **asked_for(loss_cls, quality)
            )
            value_bbox = box_slot_loss(
                self.losses["loss_rpn_bbox"],
                *pairs,
                offers={
                    "image_size": lambda: _sizes_of(self.image_sizes, labels, boxes)[positive],
                    "logits": lambda: logits[positive],
                    "labels": lambda: targets[: len(positive)],
                },
                avg_factor=avg_factor,
            )
        return value_cls, value_bbox


class BoxRoIHeads(RoIHeads):
    """torchvision's box head with the losses given; they stay outside its parameters."""

    def __init__(self, roi_heads: RoIHeads, losses: nn.ModuleDict) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(roi_heads.__dict__)  # all that torchvision's constructor has set
        self.box_coder = PairCoder(roi_heads.box_coder.weights)
        self.losses = dict(losses.items())  # a plain dict: no submodule, no key in the state_dict
        self.softmax = self.losses["loss_cls"].activation == "softmax"

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Do as torchvision does, and in training call :meth:`compute_loss`."""
        if not self.training:
            return super().forward(features, proposals, image_shapes, targets)
        # torchvision rounds the ground truth to the proposals' precision, half under autocast.
        proposals = [upcast(boxes) for boxes in proposals]
        proposals, _, labels, pairs = self.select_training_samples(proposals, targets)
        pooled = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        return [], self.compute_loss(*self.box_predictor(pooled), labels, pairs, image_shapes)

    def compute_loss(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        labels: list[Tensor],
        pairs: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """Return the losses of the sampled proposals, each divided by their number.

        Args:
            class_logits: ``[N, C]``; with softmax channel 0 is the background, as in torchvision.
            box_regression: ``[N, 4 C]``, deltas of each channel.
            labels: torchvision's for each image, 0 the background.
            pairs: ground truth and proposal of each row, ``[n, 8]`` an image.
            image_shapes: height and width of each image.
        """
        label = torch.cat(labels)
        positive = torch.where(label > 0)[0]
        deltas = box_regression.reshape(len(label), -1, 4)
        channel = label[positive] - (0 if self.softmax else 1)
        boxes, proposals = torch.cat(pairs)[positive].split(4, dim=1)
        positives = (self.box_coder, deltas[positive, channel], boxes, proposals)
        if self.softmax:
            class_logits = class_logits.roll(-1, dims=1)  # background last
        num_slots = class_logits.shape[1] - int(self.softmax)
        loss_cls = self.losses["loss_cls"]
        quality = {"quality": lambda: at_positives(box_quality(*positives), label > 0)}
        avg_factor = max(1, len(label))
        return {
            "loss_cls": loss_cls(
                class_logits,
                torch.where(label > 0, label - 1, num_slots),
                avg_factor=avg_factor,
                **asked_for(loss_cls, quality),
            ),
            "loss_bbox": box_slot_loss(
                self.losses["loss_bbox"],
                *positives,
                offers={
                    "image_size": lambda: _sizes_of(image_shapes, labels, boxes)[positive],
                    "logits": lambda: class_logits[positive],
                    "labels": lambda: label[positive] - 1,
                },
                avg_factor=avg_factor,
            ),
        }

    def postprocess_detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Score by softmax as torchvision does, or each class by its sigmoid."""
        if self.softmax:
            return super().postprocess_detections(
                class_logits, box_regression, proposals, image_shapes
            )
        counts = [len(boxes) for boxes in proposals]
        boxes = self.box_coder.decode(box_regression, proposals).split(counts)
        scores = class_logits.sigmoid().split(counts)
        results = [self._select(*image) for image in zip(boxes, scores, image_shapes, strict=True)]
        return tuple(map(list, zip(*results, strict=True)))

    def _select(
        self, boxes: Tensor, scores: Tensor, image_shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Threshold, drop empty boxes and suppress per class; labels as torchvision's, from 1."""
        row, channel = torch.where(scores > self.score_thresh)
        boxes = clip_boxes_to_image(boxes[row, channel], image_shape)
        scores, labels = scores[row, channel], channel + 1
        keep = remove_small_boxes(boxes, min_size=1e-2)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        keep = batched_nms(boxes, scores, labels, self.nms_thresh)[: self.detections_per_img]
        return boxes[keep], scores[keep], labels[keep]


def _sizes_of(
    image_shapes: Sequence[tuple[int, int]], rows: Sequence[Tensor], boxes: Tensor
) -> Tensor:
    """Return width and height of the image of each row, ``[N, 2]``, as precise as the boxes."""
    sizes = boxes.new_tensor([(width, height) for height, width in image_shapes])
    counts = torch.tensor([len(each) for each in rows], device=sizes.device)
    return sizes.repeat_interleave(counts, dim=0)
