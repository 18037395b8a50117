"""torchvision's RetinaNet with two losses from the config."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection as tv
from torchvision.models.detection.retinanet import (
    RetinaNetClassificationHead,
    RetinaNetHead,
    _default_anchorgen,
)

from det_losses.errors import InputError
from det_losses.generators import generators_kept
from det_losses.losses.core.state import mean_over_ranks
from det_losses.models.backbones import build_backbone
from det_losses.models.detector import (
    Detector,
    anchors_of_config,
    check_torchvision_arguments,
    match_anchors,
    matched_targets,
    with_normalisation,
)
from det_losses.models.fpn import norm_layer
from det_losses.models.postprocessing import detections
from det_losses.models.slots import (
    LossConfig,
    Slot,
    adopt,
    at_positives,
    box_quality,
    box_slot_loss,
    build_slot_losses,
    extra_inputs,
)
from det_losses.models.transform import SizingTransform, image_sizes
from det_losses.models.weights import BACKGROUND, WeightsConfig
from det_losses.registry import MODELS
from det_losses.tensors import is_traced, upcast

PRIOR = 0.01  # probability of an object at an anchor before training; 1708.02002, 3.3


class Head(RetinaNetHead):
    """torchvision's head with the losses of the config.

    Args:
        head: torchvision's.
        losses: the losses by slot.
        normalizer: ``"image"`` or ``"batch"``, see :class:`RetinaNet`.
    """

    def __init__(
        self, head: RetinaNetHead, losses: nn.ModuleDict, normalizer: str = "image"
    ) -> None:
        adopt(self, head)
        self.losses = dict(losses.items())  # a plain dict keeps them out of the state_dict
        self.softmax = losses["loss_cls"].activation == "softmax"
        self.per_image = normalizer == "image"

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return both losses of the batch, with one call per loss.

        The normalizer ``image`` is torchvision's: each image's sum is divided by its number of
        positives, and averaged over images. Sample weights ``1 / (B max(1, n_i))`` implement this.
        With several ranks, B is the mean number of their images.
        ``batch`` divides the sum over the batch by the batch's number of positives.
        """
        matched = torch.stack(matched_idxs)
        mask = matched >= 0
        # Indices instead of masks: each use of a mask waits for the GPU.
        positive = torch.where(mask)
        used = torch.where(matched != self.classification_head.BETWEEN_THRESHOLDS)
        logits, deltas = head_outputs["cls_logits"], head_outputs["bbox_regression"]
        weight, avg_factor = self._normalization(
            mask, torch.promote_types(logits.dtype, torch.float32)
        )
        background = self.classification_head.num_classes - int(self.softmax)
        labels, boxes = matched_targets(targets, matched, positive, background)
        coder = self.regression_head.box_coder
        pairs = (coder, deltas[positive], boxes, anchors[0][positive[1]])
        loss_cls = self.losses["loss_cls"]
        quality = {"quality": lambda: at_positives(box_quality(*pairs), mask)[used]}
        return {
            "loss_cls": loss_cls(
                logits[used],
                labels[used],
                weight=weight[used],
                avg_factor=avg_factor,
                **extra_inputs(loss_cls, quality),
            ),
            "loss_bbox": box_slot_loss(
                self.losses["loss_bbox"],
                *pairs,
                offers={
                    "image_size": lambda: image_sizes(targets)[positive[0]],
                    "logits": lambda: logits[positive],
                    "labels": lambda: labels[positive],
                },
                weight=weight[positive],
                avg_factor=avg_factor,
            ),
        }

    def _normalization(self, positive: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | float]:
        """Return the weight of each anchor, ``[B, A]``, and the divisor of the weighted sum."""
        count = positive.sum(dim=1).clamp(min=1).to(dtype)
        if self.per_image:
            images = mean_over_ranks(torch.full_like(count[0], len(count)))
            weight = 1 / (images * count)
            return weight[:, None].expand_as(positive), 1.0
        return torch.ones_like(positive, dtype=dtype), mean_over_ranks(positive.sum(), least=1)


def _add_background(head: RetinaNetClassificationHead) -> None:
    """Append a background channel per anchor to the class layer.

    The classes keep their weights, and the random numbers of other layers do not change. So
    sigmoid and softmax losses start from the same weights.
    """
    class_layer = head.cls_logits
    channels = (head.num_anchors, head.num_classes + 1)
    with generators_kept():
        layer = nn.Conv2d(class_layer.in_channels, math.prod(channels), 3, padding=1)
        nn.init.normal_(layer.weight, std=0.01)
    # All classes start equal; the background bias gives an object the probability PRIOR.
    bias = torch.zeros(channels)
    bias[:, -1] = math.log(head.num_classes * (1 - PRIOR) / PRIOR)
    with torch.no_grad():
        classes = layer.weight.unflatten(0, channels)[:, :-1]
        classes.copy_(class_layer.weight.view_as(classes))
        layer.bias.copy_(bias.flatten())
    head.cls_logits, head.num_classes = layer, channels[1]


class _RetinaNet(tv.RetinaNet):
    """torchvision's RetinaNet; the images of a batch are matched and postprocessed together."""

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
    ) -> dict[str, Tensor]:
        """Match anchors and boxes, and return the losses of the head."""
        boxes = [target["boxes"] for target in targets]
        matched = match_anchors(self.proposal_matcher, boxes, anchors[0])
        return self.head.compute_loss(targets, head_outputs, anchors, list(matched))

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: list[list[Tensor]],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Return what torchvision's method returns."""
        if is_traced():
            return super().postprocess_detections(head_outputs, anchors, image_shapes)
        return detections(
            self,
            torch.sigmoid,
            list(zip(head_outputs["cls_logits"], strict=True)),
            self.box_coder.decode_single,
            head_outputs["bbox_regression"],
            anchors[0],
            image_shapes,
        )


class _SoftmaxRetinaNet(_RetinaNet):
    """RetinaNet with softmax scores; the last channel is the background."""

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: list[list[Tensor]],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Call the method with logits whose sigmoid is the softmax score."""
        logits = [softmax_as_sigmoid_logits(level) for level in head_outputs["cls_logits"]]
        outputs = {**head_outputs, "cls_logits": logits}
        return super().postprocess_detections(outputs, anchors, image_shapes)


def softmax_as_sigmoid_logits(logits: Tensor) -> Tensor:
    r"""Return logits whose sigmoid is the softmax of each class, without the last channel.

    .. math:: \mathrm{logit}(p_k) = \log p_k - \log (1 - p_k)
    """
    log_p = upcast(logits).log_softmax(dim=-1)[..., :-1]
    rest = (1 - log_p.exp()).clamp(min=torch.finfo(log_p.dtype).eps)
    return log_p - rest.log()


@MODELS.register_module()
class RetinaNet(Detector):
    """RetinaNet (Lin et al., Focal Loss for Dense Object Detection, 1708.02002, 2017).

    The default losses are torchvision's: focal loss, and L1 on encoded deltas. Weights of
    ``torchvision.models.detection.RetinaNet`` can be loaded.

    Args:
        backbone: config of a registered backbone, or a module with ``out_channels``.
        num_classes: number of classes K, without background.
        loss_cls: classification loss, sigmoid (K channels) or softmax (K + 1, background last).
        loss_bbox: box loss, on deltas or decoded boxes.
        normalizer: ``"image"`` (torchvision: mean over images of each image's mean) or ``"batch"``
            (mmdet: mean over the positives of the batch).
        anchors: ``dict(sizes=..., aspect_ratios=...)`` for torchvision's AnchorGenerator, one tuple
            per feature level; None: torchvision's default.
        head_norm: normalisation of the head's convolutions: None, ``"GN"``, ``"BN"``.
        num_convs: convolutions in each branch of the head, 1 to 4.
        class_to_channel: channel of each class, if channels and classes differ; see Detector.
        num_channels: number of class channels; default ``num_classes``.
        weights: local file of a detector, or a name such as
            ``"RetinaNet_ResNet50_FPN_Weights.COCO_V1"``; see
            :func:`~det_losses.models.weights.read_pretrained`.
        **kwargs: further arguments of torchvision's RetinaNet (``min_size``, ``max_size``,
            ``score_thresh``, ``nms_thresh``, ``detections_per_img``, ``fg_iou_thresh``, ...).

    Raises:
        InputError: an argument is out of range, or a loss does not fit its slot.
        InputTypeError: an argument unknown to this class and torchvision's.
    """

    torchvision_class = tv.RetinaNet
    class_layers = ("head.classification_head.cls_logits",)
    slots: Mapping[str, Slot] = MappingProxyType(
        {
            "loss_cls": Slot("classification", {"type": "FocalLoss"}),
            "loss_bbox": Slot(
                "box", {"type": "L1Loss"}, layer="detector.head.regression_head.bbox_reg"
            ),
        }
    )

    @classmethod
    def settings_table(cls, model: Mapping[str, Any]) -> str:
        """Return the name of the published settings that a model's config uses."""
        return "RetinaNet"

    def __init__(
        self,
        backbone: Mapping[str, Any] | nn.Module,
        num_classes: int,
        *,
        loss_cls: LossConfig | None = None,
        loss_bbox: LossConfig | None = None,
        normalizer: str = "image",
        anchors: Mapping[str, Any] | None = None,
        head_norm: str | None = None,
        num_convs: int = 4,
        class_to_channel: Sequence[int] | None = None,
        num_channels: int | None = None,
        weights: WeightsConfig = None,
        **kwargs: Any,
    ) -> None:
        check_torchvision_arguments(RetinaNet, kwargs)
        if normalizer not in ("image", "batch"):
            raise InputError(f"RetinaNet normalizer must be 'image' or 'batch', got {normalizer!r}")
        if not 1 <= num_convs <= 4:
            raise InputError(f"RetinaNet num_convs must be 1 to 4, got {num_convs}")
        channels = num_classes if num_channels is None else num_channels
        super().__init__(num_classes, class_to_channel, channels, first_channel=0)
        configs = {"loss_cls": loss_cls, "loss_bbox": loss_bbox}
        self.losses, self.loss_sources = build_slot_losses(
            "RetinaNet", self.slots, configs, self.loss_classes
        )
        pretrained = self.read_weights(weights)
        body = build_backbone(backbone, pretrained)
        default = _default_anchorgen()
        generator = anchors_of_config(
            "RetinaNet",
            anchors or dict(sizes=default.sizes, aspect_ratios=default.aspect_ratios),
            body,
        )
        num_anchors = generator.num_anchors_per_location()[0]
        head = RetinaNetHead(
            body.out_channels, num_anchors, self.num_channels, norm_layer(head_norm)
        )
        for branch in (head.classification_head, head.regression_head):
            branch.conv = branch.conv[:num_convs]
        softmax = self.losses["loss_cls"].activation == "softmax"
        if softmax:
            _add_background(head.classification_head)
        self.detector = (_SoftmaxRetinaNet if softmax else _RetinaNet)(
            body,
            head.classification_head.num_classes,
            anchor_generator=generator,
            head=Head(head, self.losses, normalizer),
            **with_normalisation(body, kwargs),
        )
        self.detector.transform = SizingTransform(self.detector.transform)
        self.load(pretrained)

    def channel_names(self, classes: Sequence[str] | None) -> list[str | None]:
        """Return the name of each channel; with softmax, the last is the background."""
        softmax = self.losses["loss_cls"].activation == "softmax"
        return super().channel_names(classes) + [BACKGROUND] * softmax
