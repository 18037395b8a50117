"""Puts losses of this package into the criterion of an ultralytics model."""

from collections.abc import Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from det_losses.errors import InputError
from det_losses.losses import Loss
from det_losses.models.fcos import takes_soft_targets
from det_losses.models.slots import LossConfig, Slot, build_slot_losses, extra_inputs
from det_losses.tensors import upcast

SLOTS: Mapping[str, Slot] = MappingProxyType(
    {
        "loss_bbox": Slot("box", None),
        "loss_cls": Slot("classification", None, ("sigmoid",)),
        "loss_dfl": Slot("distribution", None),
    }
)
_OFFERED = ("image_size", "pred_deltas", "target_deltas")
INSTALL = "pip install 'det-losses[yolo]'"


def use_losses(
    model: nn.Module,
    loss_bbox: LossConfig | None = None,
    loss_cls: LossConfig | None = None,
    loss_dfl: LossConfig | None = None,
) -> list[nn.ModuleDict]:
    """Replace losses in the criterion of an ultralytics detection model; None keeps ultralytics'.

    Everything else of the criterion stays: the assignment of targets, the weights of the positives
    (their target scores), the division by the sum of the target scores, and the gains ``box``,
    ``cls`` and ``dfl``. A loss has ``loss_weight`` 1 unless another is given.

    In a training of ultralytics, call this when the trainer has set up the model::

        yolo = ultralytics.YOLO("yolo11n.yaml")
        yolo.add_callback("on_train_start", lambda trainer: use_losses(trainer.model, "EIoULoss"))
        yolo.train(data="data.yaml")

    Args:
        model: a ``DetectionModel``, with its ``args``.
        loss_bbox: a box loss instead of CIoU. Boxes are in pixels of the network's input; deltas
            are the distances from the anchor point to the sides, in strides.
        loss_cls: a sigmoid loss instead of binary cross-entropy. The target of each class is in
            [0, 1], the normalised alignment of the task-aligned assigner.
        loss_dfl: a loss of the distributions of the distances, in models that have them.

    Returns:
        What calls each loss, by slot, for each criterion: YOLO26 has two of them, one-to-many and
        one-to-one.

    Raises:
        InputError: a loss does not fit its slot, the model is not a detector of upright boxes, or
            this version of ultralytics has another criterion.
    """
    if getattr(model, "criterion", None) is None:
        model.criterion = model.init_criterion()
    given = {"loss_bbox": loss_bbox, "loss_cls": loss_cls, "loss_dfl": loss_dfl}
    found = []
    for part in criteria(model.criterion):
        # Each criterion has its own losses, because the state of a loss belongs to its matches.
        own = {name: deepcopy(loss) for name, loss in given.items()}
        losses = build_losses(own, part.nc).to(part.device)
        _check(losses, part)
        found.append(_install(losses, part))
    return found


def share_losses(model: nn.Module, other: nn.Module) -> None:
    """Let the criterion of ``other``, such as the averaged model, call the losses of ``model``."""
    other.criterion = other.init_criterion()
    for own, part in zip(criteria(model.criterion), criteria(other.criterion), strict=True):
        part.bbox_loss, part.bce = own.bbox_loss, own.bce


def criteria(criterion: Any) -> list[Any]:
    """Return the criteria with a box and a class loss: one, or both parts of an ``E2ELoss``.

    Raises:
        InputError: there is none, or it is not one of upright boxes.
    """
    parts = [criterion, *(getattr(criterion, "__dict__", None) or {}).values()]
    found = [part for part in parts if hasattr(part, "bbox_loss") and hasattr(part, "bce")]
    kinds = {type(part.bbox_loss).__name__ for part in found}
    if not found or not kinds <= {"BboxLoss", BoxLosses.__name__}:
        raise InputError(
            f"{type(criterion).__name__} of ultralytics has no loss of upright boxes that can be "
            f"replaced ({', '.join(sorted(kinds)) or 'no bbox_loss'}). Use a detection model, and "
            f"a version of ultralytics that this package knows: {INSTALL}"
        )
    return found


def build_losses(given: Mapping[str, LossConfig | None], num_classes: int) -> nn.ModuleDict:
    """Build the loss of each slot that is given.

    Args:
        given: slot -> loss, for all of :data:`SLOTS`; None: no loss.
        num_classes: number of classes of the detector.

    Raises:
        InputError: a loss does not fit its slot.
    """
    losses, _ = build_slot_losses("YOLO", SLOTS, given, num_classes)
    if "loss_bbox" in losses:
        loss = losses["loss_bbox"]
        if missing := [key for key in loss.inputs if key not in _OFFERED]:
            raise InputError(
                f"loss_bbox: {type(loss).__name__} needs the input {missing[0]!r}; the criterion "
                f"of ultralytics has {', '.join(_OFFERED)}"
            )
    return losses


def _check(losses: nn.ModuleDict, part: Any) -> None:
    """Raise if a loss does not fit the targets or the outputs of a model."""
    if "loss_cls" in losses:
        loss = losses["loss_cls"]
        if loss.own_mean or not takes_soft_targets(loss, part.nc):
            raise InputError(
                "loss_cls: targets are in [0, 1], and the sum of the loss is divided by their sum, "
                f"which {type(loss).__name__} does not accept. Choose another loss, such "
                "as QualityFocalLoss"
            )
    if "loss_dfl" in losses and not part.use_dfl:
        raise InputError(
            "loss_dfl: this model predicts distances without a distribution (reg_max 1); remove it"
        )


def _install(losses: nn.ModuleDict, part: Any) -> nn.ModuleDict:
    installed = nn.ModuleDict()
    if "loss_dfl" in losses:
        original = getattr(part.bbox_loss, "original", part.bbox_loss)
        original.dfl_loss = installed["loss_dfl"] = DistanceLoss(losses["loss_dfl"], part.reg_max)
    if "loss_bbox" in losses:
        part.bbox_loss = installed["loss_bbox"] = BoxLosses(part.bbox_loss, losses["loss_bbox"])
    if "loss_cls" in losses:
        part.bce = installed["loss_cls"] = ClassLoss(losses["loss_cls"])
    return installed


class _InCriterion(nn.Module):
    """A loss inside a criterion, which is not a module: ``train()`` and ``eval()`` do not reach it.

    A validation runs without gradients; the state of the loss must not change then.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss
        self.calls = 0

    def _compute(self, *args: Any, **kwargs: Any) -> Tensor:
        self.calls += 1
        self.loss.train(torch.is_grad_enabled())
        return self.loss(*args, **kwargs)


class BoxLosses(_InCriterion):
    """In place of ultralytics' ``BboxLoss``: another box loss; DFL (or L1) stays in the original.

    Args:
        original: ultralytics' ``BboxLoss``.
        loss: the box loss.
    """

    def __init__(self, original: nn.Module, loss: Loss) -> None:
        super().__init__(loss)
        self.original = getattr(original, "original", original)

    def forward(
        self,
        pred_dist: Tensor,
        pred_bboxes: Tensor,
        anchor_points: Tensor,
        target_bboxes: Tensor,
        target_scores: Tensor,
        target_scores_sum: Tensor,
        fg_mask: Tensor,
        imgsz: Tensor,
        stride: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the box loss and DFL of the positives, with ultralytics' arguments.

        Args:
            pred_dist: the head's output for the distances, ``[B, A, 4 reg_max]``.
            pred_bboxes: decoded boxes, ``[B, A, 4]``, xyxy, in strides.
            anchor_points: ``[A, 2]``, in strides.
            target_bboxes: matched ground truth, ``[B, A, 4]``, xyxy, in strides.
            target_scores: ``[B, A, K]``; their sum over K is the weight of a positive.
            target_scores_sum: divisor of the losses.
            fg_mask: which anchor points are positives, ``[B, A]``.
            imgsz: height and width of the network's input, pixels.
            stride: of each anchor point, ``[A, 1]``, pixels.
        """
        _, loss_dfl = self.original(
            pred_dist,
            pred_bboxes,
            anchor_points,
            target_bboxes,
            target_scores,
            target_scores_sum,
            fg_mask,
            imgsz,
            stride,
        )
        image, point = fg_mask.nonzero(as_tuple=True)
        pred = upcast(pred_bboxes[image, point])
        target = target_bboxes[image, point].to(pred)
        anchors, unit = anchor_points[point].to(pred), stride[point].to(pred)
        offers = {
            "image_size": lambda: imgsz.flip(0).to(pred).expand(len(pred), 2),
            "pred_deltas": lambda: _distances(pred, anchors),
            "target_deltas": lambda: _distances(target, anchors),
        }
        if self.loss.space == "delta":
            pair = offers["pred_deltas"](), offers["target_deltas"]()
        else:
            pair = pred * unit, target * unit
        loss = self._compute(
            *pair,
            weight=target_scores[image, point].sum(-1),
            avg_factor=target_scores_sum,
            **extra_inputs(self.loss, offers),
        )
        return loss, loss_dfl


class ClassLoss(_InCriterion):
    """In place of ultralytics' ``BCEWithLogitsLoss(reduction="none")``."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each class, ``[B, A, K]``, from logits and targets in [0, 1]."""
        rows = pred.flatten(0, -2), target.flatten(0, -2)
        return self._compute(*rows, reduction_override="none").view_as(pred)


class DistanceLoss(_InCriterion):
    """In place of ultralytics' ``DFLoss``.

    Args:
        loss: the loss of a distribution.
        reg_max: number of bins, which ``BboxLoss`` reads.
    """

    def __init__(self, loss: Loss, reg_max: int) -> None:
        super().__init__(loss)
        self.reg_max = reg_max

    def forward(self, pred_dist: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the four sides, ``[N, 1]``, from ``[4 N, reg_max]``, ``[N, 4]``."""
        sides = self._compute(pred_dist, target.flatten(), reduction_override="none")
        return sides.view_as(target).mean(-1, keepdim=True)


def _distances(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return left, top, right and bottom distance of the sides from the anchor points."""
    return torch.cat([anchors - boxes[:, :2], boxes[:, 2:] - anchors], dim=1)
