"""Losses of this package in the detectors of transformers: DETR, RT-DETR (v1, v2), D-FINE."""

from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from det_losses.boxes import box_pair
from det_losses.errors import InputError
from det_losses.losses import Loss
from det_losses.models.slots import LossConfig, Slot, build_slot_losses, extra_inputs
from det_losses.tensors import upcast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The classes of transformers.loss that compute the losses of a model, and what their logits are.
CRITERIA: Mapping[str, str] = MappingProxyType(
    {"ImageLoss": "softmax", "RTDetrLoss": "sigmoid", "DFineLoss": "sigmoid"}
)


def with_losses(
    model: "PreTrainedModel",
    *,
    loss_bbox: LossConfig = "L1Loss",
    loss_iou: LossConfig = "GIoULoss",
    loss_cls: LossConfig | None = None,
    image_size: tuple[int, int] | None = None,
) -> "PreTrainedModel":
    """Put losses into a DETR, RT-DETR or D-FINE of transformers.

    They are used in all decoder layers, in the encoder's proposals and in the denoising groups. The
    matching, the number of boxes that losses are divided by, and D-FINE's losses of distributions
    (FGL, DDF) remain those of transformers. With the defaults all losses are equal to its own.

    A loss on decoded boxes gets xyxy boxes in pixels, so ``eps`` and other lengths have their usual
    unit, and a loss that is not invariant to the aspect ratio sees the image as it is. The size of
    an image is the entry ``size`` (height, width) of its labels, which the image processors of
    transformers write. A loss on deltas gets what transformers' L1 loss gets: centre and size,
    divided by the size of the image.

    Args:
        model: the model, which is changed; pretrained or not.
        loss_bbox: instead of the L1 loss.
        loss_iou: instead of the GIoU loss.
        loss_cls: instead of the classification loss: a softmax loss in DETR, a sigmoid loss in
            RT-DETR and D-FINE. None: that of transformers.
        image_size: width and height for labels without ``size``.

    Each loss is a name, a call such as ``"InnerIoU(CIoULoss, ratio=0.7)"``, a config or a module.
    Its ``loss_weight`` multiplies the coefficient in the model's config (5 for ``loss_bbox``, 2 for
    ``loss_iou``, 1 for ``loss_cls`` unless changed there); 0 switches a loss off.

    Returns:
        ``model``. The losses are in ``model.loss_function.losses``.

    Raises:
        InputError: the model is not one of these, or a loss does not fit its slot.
    """
    function = getattr(model, "loss_function", None)
    if isinstance(function, SlotLosses):
        function = function.function
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    criterion = next((name for name in CRITERIA if name in names), None)
    if criterion is None:
        raise InputError(
            f"{type(model).__name__}: losses can be replaced in DETR, RT-DETR, RT-DETR v2 and "
            "D-FINE for object detection"
        )
    given = {"loss_bbox": loss_bbox, "loss_iou": loss_iou, "loss_cls": loss_cls}
    losses = build_losses(
        given, CRITERIA[criterion], model.config.num_labels, title=type(model).__name__
    )
    value = SlotLosses(function, criterion, losses, image_size).to(model.device)
    # The property's setter: nn.Module.__setattr__ would register a module beside the property.
    type(model).loss_function.fset(model, value)
    return model


def build_losses(
    given: Mapping[str, LossConfig | None],
    activation: str,
    num_classes: int,
    title: str = "the model",
) -> nn.ModuleDict:
    """Build the losses of a model, and check that they fit.

    Args:
        given: slot -> its loss; a slot that is missing has its default.
        activation: ``"softmax"`` or ``"sigmoid"``, what the model's logits are for.
        num_classes: without background.
        title: name of the model in errors.

    Returns:
        The losses by slot; without ``loss_cls`` if none is given.

    Raises:
        InputError: a loss does not fit its slot.
        InputTypeError: an unknown parameter.
    """
    slots = {
        "loss_bbox": Slot("box", {"type": "L1Loss"}),
        "loss_iou": Slot("box", {"type": "GIoULoss"}),
        "loss_cls": Slot("classification", None, activations=(activation,)),
    }
    losses, _ = build_slot_losses(title, slots, {**dict.fromkeys(slots), **given}, num_classes)
    for name, loss in losses.items():
        if "logits" in loss.inputs and loss.activation not in (None, activation):
            raise InputError(
                f"{title}.{name} contains a classification loss for {loss.activation}, and this "
                f"model scores by {activation}: use the same activation"
            )
    return losses


class SlotLosses(nn.Module):
    """The loss function of a model: that of transformers, with another criterion in it.

    It is a module of the model, so that losses with state are moved, copied and saved with it.

    Args:
        function: of transformers, such as ``ForObjectDetectionLoss``.
        criterion: name of the class in it that computes the losses.
        losses: by slot.
        image_size: width and height for labels without ``size``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        criterion: str,
        losses: nn.ModuleDict,
        image_size: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.function = function
        self.criterion = criterion
        self.losses = losses
        self.image_size = image_size

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call transformers' function with a criterion that uses the losses."""
        names = self.function.__globals__
        criterion = partial(_criterion_class(names[self.criterion]), slots=self)
        rebound = FunctionType(
            self.function.__code__,
            {**names, self.criterion: criterion},
            argdefs=self.function.__defaults__,
            closure=self.function.__closure__,
        )
        rebound.__kwdefaults__ = self.function.__kwdefaults__
        return rebound(*args, **kwargs)

    def boxes(self, matched: "Matched", num_boxes: float) -> dict[str, Tensor]:
        """Return both box losses under transformers' names."""
        keys = {"loss_bbox": "loss_bbox", "loss_iou": "loss_giou"}
        return {
            key: self._box_loss(self.losses[name], matched, num_boxes) for name, key in keys.items()
        }

    def labels(
        self, matched: "Matched", logits: Tensor, eos_weight: float, num_boxes: float
    ) -> Tensor:
        """Return the classification loss of all queries.

        Args:
            matched: the matched queries.
            logits: of all queries, ``[B, Q, C]``.
            eos_weight: weight of the background in DETR's cross-entropy.
            num_boxes: divisor of a sigmoid loss.
        """
        loss = self.losses["loss_cls"]
        softmax = loss.activation == "softmax"
        background = logits.shape[-1] - int(softmax)
        labels = torch.full(logits.shape[:2], background, device=logits.device)
        labels[matched.index] = matched.labels
        offers = {"quality": lambda: self._quality(matched, labels)}
        weight, divisor = None, num_boxes
        if softmax:  # the weighted mean of F.cross_entropy
            weight = torch.where(labels == background, eos_weight, 1.0).flatten()
            divisor = weight.sum()
        return loss(
            logits.flatten(0, 1),
            labels.flatten(),
            weight=weight,
            avg_factor=divisor,
            **extra_inputs(loss, offers),
        )

    def _box_loss(self, loss: Loss, matched: "Matched", num_boxes: float) -> Tensor:
        pair = matched.pred, matched.target
        if loss.space == "decoded":
            pair = self._pixels(matched)
        offers = {
            "image_size": lambda: self._sizes(matched),
            "pred_deltas": lambda: matched.pred,
            "target_deltas": lambda: matched.target,
            "logits": lambda: matched.logits,
            "labels": lambda: matched.labels,
        }
        return loss(*pair, avg_factor=num_boxes, **extra_inputs(loss, offers))

    @torch.no_grad()
    def _quality(self, matched: "Matched", labels: Tensor) -> Tensor:
        """IoU of each matched query with its ground truth, 0 for the others, ``[B * Q]``."""
        quality = torch.zeros(labels.shape, dtype=matched.pred.dtype, device=labels.device)
        quality[matched.index] = box_pair(*self._pixels(matched)).iou
        return quality.flatten()

    def _sizes(self, matched: "Matched") -> Tensor:
        return matched.image_sizes(self.image_size)

    def _pixels(self, matched: "Matched") -> tuple[Tensor, Tensor]:
        """Predicted boxes and ground truth, xyxy, pixels."""
        scale = self._sizes(matched).repeat(1, 2)
        return _corners(matched.pred * scale), _corners(matched.target * scale)


class Matched:
    """The matched queries of a batch and their ground truth, in the order of the matching.

    Args:
        outputs: of one layer, with ``logits`` and ``pred_boxes``.
        targets: for each image ``class_labels``, ``boxes`` and optionally ``size``.
        indices: for each image the matched queries and the ground truth of each.
        index: the matched queries as indices of batch and query.

    Attributes:
        pred: predicted boxes, ``[N, 4]``, centre and size divided by those of the image.
        target: their ground truth, in the same format.
        labels: classes of the ground truth, ``[N]``.
        logits: of the matched queries, ``[N, C]``.
    """

    def __init__(
        self,
        outputs: Mapping[str, Tensor],
        targets: list[dict[str, Tensor]],
        indices: list[tuple[Tensor, Tensor]],
        index: tuple[Tensor, Tensor],
    ) -> None:
        rows = [(target, own) for target, (_, own) in zip(targets, indices, strict=True)]
        self.index = index
        self.pred = upcast(outputs["pred_boxes"][index])
        self.logits = outputs["logits"][index]
        self.target = torch.cat([target["boxes"][own] for target, own in rows]).to(self.pred)
        self.labels = torch.cat([target["class_labels"][own] for target, own in rows])
        self._rows = rows

    def image_sizes(self, default: tuple[int, int] | None) -> Tensor:
        """Return width and height of the image of each row, ``[N, 2]``.

        Raises:
            InputError: labels have no size, and there is no default.
        """
        sizes = []
        for target, own in self._rows:
            if "size" in target:
                size = torch.as_tensor(target["size"], device=self.pred.device).flip(0)
            elif default is not None:
                size = torch.tensor(default, device=self.pred.device)
            else:
                raise InputError(
                    "the labels have no 'size' (height, width), which losses on boxes in pixels "
                    "need: keep the entry of the image processor, or give "
                    "with_losses(..., image_size=(width, height))"
                )
            sizes.append(size.to(self.pred.dtype).expand(len(own), 2))
        return torch.cat(sizes)


def _corners(boxes: Tensor) -> Tensor:
    center, size = boxes.split(2, dim=-1)
    return torch.cat([center - size / 2, center + size / 2], dim=-1)


def _criterion_class(base: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of a criterion of transformers whose losses are those of the slots."""

    class Criterion(base):
        def __init__(self, *args: Any, slots: SlotLosses, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.slots = slots

        def loss_boxes(self, outputs, targets, indices, num_boxes):
            return self.slots.boxes(self._matched(outputs, targets, indices), num_boxes)

        def loss_labels(self, outputs, targets, indices, num_boxes):
            return self._labels(
                "loss_ce", super().loss_labels, outputs, targets, indices, num_boxes
            )

        def loss_labels_vfl(self, outputs, targets, indices, num_boxes):
            own = super().loss_labels_vfl
            return self._labels("loss_vfl", own, outputs, targets, indices, num_boxes)

        def _labels(self, key, own, outputs, targets, indices, num_boxes):
            if "loss_cls" not in self.slots.losses:
                return own(outputs, targets, indices, num_boxes)
            matched = self._matched(outputs, targets, indices)
            loss = self.slots.labels(matched, outputs["logits"], self.eos_coef, num_boxes)
            return {key: loss}

        def _matched(self, outputs, targets, indices):
            index = self._get_source_permutation_idx(indices)
            return Matched(outputs, targets, indices, index)

    return Criterion
