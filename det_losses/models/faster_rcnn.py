"""torchvision's Faster R-CNN with four losses from the config."""

import math
from collections.abc import Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection as tv
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import (
    batched_nms,
    clip_boxes_to_image,
    remove_small_boxes,
)

from det_losses.errors import InputError
from det_losses.generators import generators_kept
from det_losses.losses.core.state import mean_over_ranks
from det_losses.models.backbones import build_backbone
from det_losses.models.detector import (
    Detector,
    anchors_of_config,
    check_torchvision_arguments,
    with_normalisation,
)
from det_losses.models.roi_align import RoIAlign
from det_losses.models.slots import (
    LossConfig,
    PairCoder,
    Slot,
    adopt,
    at_positives,
    box_quality,
    box_slot_loss,
    build_slot_losses,
    extra_inputs,
)
from det_losses.models.transform import SizingTransform
from det_losses.models.weights import BACKGROUND, WeightsConfig
from det_losses.registry import MODELS
from det_losses.signatures import check_ranges
from det_losses.tensors import upcast

PRIOR = 0.01  # probability of each class before training with a sigmoid loss; 1708.02002, 3.3
ANCHOR_SIZES = ((32,), (64,), (128,), (256,), (512,))
ASPECT_RATIOS = (0.5, 1.0, 2.0)


def _adopt_head(head: nn.Module, built: nn.Module, losses: nn.ModuleDict) -> None:
    """Initialize a head from torchvision's, and add the losses."""
    adopt(head, built)
    head.box_coder = PairCoder(built.box_coder.weights)
    head.losses = dict(losses.items())  # a plain dict keeps them out of the state_dict


class RPN(RegionProposalNetwork):
    """torchvision's RPN with the losses of the config."""

    def __init__(self, rpn: RegionProposalNetwork, losses: nn.ModuleDict) -> None:
        _adopt_head(self, rpn, losses)

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Call torchvision's method and name the losses by their slots."""
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

        ``regression_targets`` are the pairs of :class:`PairCoder`, ``[N, 8]`` per image.
        """
        positive, negative = (
            torch.where(torch.cat(masks))[0] for masks in self.fg_bg_sampler(labels)
        )
        sampled = torch.cat([positive, negative])
        # In torchvision, label 1 is the object; here class 0 is the object, label 1 the background.
        targets = 1 - torch.cat(labels)[sampled].to(torch.int64)
        boxes, anchors = torch.cat(regression_targets)[positive].split(4, dim=1)
        pairs = (self.box_coder, pred_bbox_deltas[positive], boxes, anchors)
        logits = objectness.flatten()[:, None]
        loss_cls = self.losses["loss_rpn_cls"]
        quality = {"quality": lambda: at_positives(box_quality(*pairs), targets == 0)}
        avg_factor = _mean_number(sampled)
        with generators_kept():  # a loss that draws does not change the RoI head's sampling
            value_cls = loss_cls(
                logits[sampled], targets, avg_factor=avg_factor, **extra_inputs(loss_cls, quality)
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
    """torchvision's box head with the losses of the config.

    Args:
        roi_heads: torchvision's.
        losses: the losses by slot.
        background: whether channel 0 of class and box layer is the background. A sigmoid loss does
            not use this channel.
    """

    def __init__(
        self, roi_heads: RoIHeads, losses: nn.ModuleDict, *, background: bool = True
    ) -> None:
        _adopt_head(self, roi_heads, losses)
        self.background = background
        self.softmax = self.losses["loss_cls"].activation == "softmax"

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """As in torchvision; training calls :meth:`compute_loss`."""
        if not self.training:
            return super().forward(features, proposals, image_shapes, targets)
        # torchvision casts the ground truth to the proposals' dtype, half precision under autocast.
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
            class_logits: ``[N, C]``; channel 0 is the background, as in torchvision, if the layers
                have one.
            box_regression: ``[N, 4 C]``, deltas per channel.
            labels: torchvision's labels per image; 0 is the background.
            pairs: ground truth and proposal of each row, ``[n, 8]`` per image.
            image_shapes: height and width of each image.
        """
        label = torch.cat(labels)
        positive = torch.where(label > 0)[0]
        deltas = box_regression.reshape(len(label), -1, 4)
        channel = label[positive] - (0 if self.background else 1)
        boxes, proposals = torch.cat(pairs)[positive].split(4, dim=1)
        positives = (self.box_coder, deltas[positive, channel], boxes, proposals)
        if self.softmax:
            class_logits = class_logits.roll(-1, dims=1)  # background last
        elif self.background:
            class_logits = class_logits[:, 1:]
        num_classes = class_logits.shape[1] - int(self.softmax)
        loss_cls = self.losses["loss_cls"]
        quality = {"quality": lambda: at_positives(box_quality(*positives), label > 0)}
        avg_factor = _mean_number(label)
        return {
            "loss_cls": loss_cls(
                class_logits,
                torch.where(label > 0, label - 1, num_classes),
                avg_factor=avg_factor,
                **extra_inputs(loss_cls, quality),
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
        """Score by softmax, as in torchvision, or by a sigmoid per class."""
        if self.softmax:
            return super().postprocess_detections(
                class_logits, box_regression, proposals, image_shapes
            )
        if self.background:
            class_logits, box_regression = class_logits[:, 1:], box_regression[:, 4:]
        counts = [boxes.shape[0] for boxes in proposals]  # an export traces shape, but not len
        boxes = self.box_coder.decode(box_regression, proposals).split(counts)
        scores = class_logits.sigmoid().split(counts)
        results = [self._select(*image) for image in zip(boxes, scores, image_shapes, strict=True)]
        return tuple(map(list, zip(*results, strict=True)))

    def _select(
        self, boxes: Tensor, scores: Tensor, image_shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Threshold, remove empty boxes, NMS per class; labels start at 1, as in torchvision."""
        row, channel = torch.where(scores > self.score_thresh)
        boxes = clip_boxes_to_image(boxes[row, channel], image_shape)
        scores, labels = scores[row, channel], channel + 1
        keep = remove_small_boxes(boxes, min_size=1e-2)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        keep = batched_nms(boxes, scores, labels, self.nms_thresh)[: self.detections_per_img]
        return boxes[keep], scores[keep], labels[keep]


def _mean_number(rows: Tensor) -> Tensor:
    """Return the number of rows, at least 1; with several ranks its mean over them."""
    return mean_over_ranks(torch.full((), len(rows), device=rows.device), least=1)


def _sizes_of(
    image_shapes: Sequence[tuple[int, int]], rows: Sequence[Tensor], boxes: Tensor
) -> Tensor:
    """Return width and height of the image of each row, ``[N, 2]``, in the dtype of the boxes."""
    sizes = boxes.new_tensor([(width, height) for height, width in image_shapes])
    counts = torch.tensor([len(each) for each in rows], device=sizes.device)
    return sizes.repeat_interleave(counts, dim=0)


def _checked_levels(roi_levels: Sequence[str], known: Sequence[str]) -> list[str]:
    unknown = [name for name in roi_levels if name not in known]
    if unknown or not roi_levels:
        raise InputError(
            f"FasterRCNN roi_levels must be names of the backbone's levels ({', '.join(known)}), "
            f"got {list(roi_levels)}"
        )
    return list(roi_levels)


def _drop_background(predictor: FastRCNNPredictor) -> None:
    """Remove channel 0 from both layers, and initialise each class probability to PRIOR.

    The classes keep the weights drawn together with those of the background, and the random numbers
    of other layers do not change. So sigmoid and softmax losses start from the same weights.
    """
    for layer, rows in ((predictor.cls_score, 1), (predictor.bbox_pred, 4)):
        layer.weight = nn.Parameter(layer.weight.detach()[rows:].clone())
        layer.bias = nn.Parameter(layer.bias.detach()[rows:].clone())
        layer.out_features -= rows
    nn.init.constant_(predictor.cls_score.bias, -math.log((1 - PRIOR) / PRIOR))


@MODELS.register_module()
class FasterRCNN(Detector):
    """Faster R-CNN with FPN (Ren et al., 1506.01497, 2015; Lin et al., 1612.03144, 2017).

    The default losses are torchvision's: binary cross-entropy and Smooth L1 (beta 1/9) in the RPN,
    cross-entropy and Smooth L1 (beta 1/9) in the RoI head. Each is divided by the number of sampled
    anchors or proposals. Weights of ``torchvision.models.detection.FasterRCNN`` can be loaded.

    Args:
        backbone: config of a registered backbone, or a module with ``out_channels``.
        num_classes: number of classes K, without background.
        loss_rpn_cls: classification loss of the RPN, sigmoid, one channel.
        loss_rpn_bbox: box loss of the RPN, on deltas or decoded boxes.
        loss_cls: classification loss of the RoI head, softmax (K + 1 channels) or sigmoid (K).
        loss_bbox: box loss of the RoI head, on deltas or decoded boxes.
        anchors: ``dict(sizes=..., aspect_ratios=...)`` for torchvision's AnchorGenerator, one tuple
            per feature level; None: torchvision's default.
        representation_size: width of the two fully connected layers of the RoI head.
        roi_size: side of the pooled RoI features.
        roi_levels: names of the feature maps that RoIs are pooled from; None: all except "pool".
        class_to_channel: channel of each class, if channels and classes differ; see Detector.
        num_channels: number of channels, including the background (channel 0); default K + 1.
        weights: local file of a detector, or a name such as
            ``"FasterRCNN_ResNet50_FPN_Weights.COCO_V1"``; see
            :func:`~det_losses.models.weights.read_pretrained`.
        **kwargs: further arguments of torchvision's FasterRCNN (``min_size``, ``max_size``,
            ``rpn_*``, ``box_*``, ...).

    Raises:
        InputError: an argument is out of range, or a loss does not fit its slot.
        InputTypeError: an argument unknown to this class and torchvision's.
    """

    torchvision_class = tv.FasterRCNN
    class_layers = ("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred")
    channel_dim = 0
    slots: Mapping[str, Slot] = MappingProxyType(
        {
            "loss_rpn_cls": Slot(
                "classification", {"type": "BinaryCrossEntropyLoss"}, ("sigmoid",), classes=1
            ),
            "loss_rpn_bbox": Slot(
                "box", {"type": "SmoothL1Loss"}, layer="detector.rpn.head.bbox_pred"
            ),
            "loss_cls": Slot("classification", {"type": "CrossEntropyLoss"}),
            "loss_bbox": Slot(
                "box",
                {"type": "SmoothL1Loss"},
                layer="detector.roi_heads.box_predictor.bbox_pred",
            ),
        }
    )

    @classmethod
    def settings_table(cls, model: Mapping[str, Any]) -> str:
        """Return the name of the published settings that a model's config uses."""
        return "FasterRCNN"

    def __init__(
        self,
        backbone: Mapping[str, Any] | nn.Module,
        num_classes: int,
        *,
        loss_rpn_cls: LossConfig | None = None,
        loss_rpn_bbox: LossConfig | None = None,
        loss_cls: LossConfig | None = None,
        loss_bbox: LossConfig | None = None,
        anchors: Mapping[str, Any] | None = None,
        representation_size: int = 1024,
        roi_size: int = 7,
        roi_levels: Sequence[str] | None = None,
        class_to_channel: Sequence[int] | None = None,
        num_channels: int | None = None,
        weights: WeightsConfig = None,
        **kwargs: Any,
    ) -> None:
        check_torchvision_arguments(FasterRCNN, kwargs)
        sizes = dict(representation_size=representation_size, roi_size=roi_size)
        check_ranges(sizes, dict.fromkeys(sizes, (1, inf)))
        channels = num_classes + 1 if num_channels is None else num_channels
        super().__init__(num_classes, class_to_channel, channels, first_channel=1)
        configs = {
            "loss_rpn_cls": loss_rpn_cls,
            "loss_rpn_bbox": loss_rpn_bbox,
            "loss_cls": loss_cls,
            "loss_bbox": loss_bbox,
        }
        self.losses, self.loss_sources = build_slot_losses(
            "FasterRCNN", self.slots, configs, self.loss_classes
        )
        softmax = self.losses["loss_cls"].activation == "softmax"
        pretrained = self.read_weights(weights)
        body = build_backbone(backbone, pretrained)
        default = {"sizes": ANCHOR_SIZES, "aspect_ratios": ASPECT_RATIOS}
        levels = [name for name in body.level_names if name != "pool"]
        if roi_levels is not None:
            levels = _checked_levels(roi_levels, levels)
        predictor = FastRCNNPredictor(representation_size, self.num_channels)
        if not softmax:
            _drop_background(predictor)
        detector = tv.FasterRCNN(
            body,
            rpn_anchor_generator=anchors_of_config("FasterRCNN", anchors or default, body),
            box_roi_pool=RoIAlign(levels, output_size=roi_size, sampling_ratio=2),
            box_head=TwoMLPHead(body.out_channels * roi_size**2, representation_size),
            box_predictor=predictor,
            **with_normalisation(body, kwargs),
        )
        detector.transform = SizingTransform(detector.transform)
        detector.rpn = RPN(detector.rpn, self.losses)
        detector.roi_heads = BoxRoIHeads(detector.roi_heads, self.losses, background=softmax)
        self.detector = detector
        self.load(pretrained)

    def channel_names(self, classes: Sequence[str] | None) -> list[str | None]:
        """Return the name of each channel; with softmax, the first is the background."""
        names = super().channel_names(classes)[1:]
        return [BACKGROUND] * (self.losses["loss_cls"].activation == "softmax") + names
