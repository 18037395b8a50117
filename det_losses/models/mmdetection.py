"""Checkpoints of mmdetection (version 2.0 and later) under torchvision's names of tensors.

Written from the definitions of mmdetection's modules: names, order of channels, and what each layer
computes. Layers that compute something else are left out, and said so.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from det_losses.errors import InputError

_HEADS = ("bbox_head.", "rpn_head.", "roi_head.")
_BACKBONE = (
    (r"backbone\.((?:conv1|bn1|layer\d)\..*)", r"backbone.body.\1"),
    (r"neck\.lateral_convs\.(\d+)\.conv\.(\w+)", r"backbone.fpn.inner_blocks.\1.0.\2"),
)
_TOWERS = (("cls", "classification"), ("reg", "regression"))
_NAMES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "RetinaNet": (
        *(
            (rf"bbox_head\.{short}_convs\.(\d+)\.conv\.(\w+)", rf"head.{long}_head.conv.\1.0.\2")
            for short, long in _TOWERS
        ),
        # Both have the channels (anchor, class) and (anchor, side), and anchors by ratio and scale.
        (r"bbox_head\.retina_cls\.(\w+)", r"head.classification_head.cls_logits.\1"),
        (r"bbox_head\.retina_reg\.(\w+)", r"head.regression_head.bbox_reg.\1"),
    ),
    "FasterRCNN": (
        (r"rpn_head\.rpn_conv\.(\w+)", r"rpn.head.conv.0.0.\1"),
        (r"rpn_head\.rpn_cls\.(\w+)", r"rpn.head.cls_logits.\1"),
        (r"rpn_head\.rpn_reg\.(\w+)", r"rpn.head.bbox_pred.\1"),
        (r"roi_head\.bbox_head\.shared_fcs\.0\.(\w+)", r"roi_heads.box_head.fc6.\1"),
        (r"roi_head\.bbox_head\.shared_fcs\.1\.(\w+)", r"roi_heads.box_head.fc7.\1"),
        (r"roi_head\.bbox_head\.fc_cls\.(\w+)", r"roi_heads.box_predictor.cls_score.\1"),
        (r"roi_head\.bbox_head\.fc_reg\.(\w+)", r"roi_heads.box_predictor.bbox_pred.\1"),
    ),
    "FCOS": ((r"bbox_head\.(?:conv|fcos)_cls\.(\w+)", r"head.classification_head.cls_logits.\1"),),
}
_FCOS_TOWER = re.compile(r"bbox_head\.(cls|reg)_convs\.(\d+)\.(conv|gn)\.(\w+)")
_PYRAMID = re.compile(r"neck\.fpn_convs\.(\d+)\.conv\.(\w+)")
_DIFFERENT = {
    "RetinaNet": "mmdetection's RetinaNet computes the levels p6 and p7 from other features",
    "FasterRCNN": "mmdetection's RoIAlign samples other points (aligned, all of a bin)",
    "FCOS": (
        "mmdetection's FCOS scales the distances by a number per level and may compute centerness "
        "from the features of the classes, so bbox_reg and bbox_ctrness are made anew"
    ),
}


def is_mmdetection(state: Mapping[str, Tensor]) -> bool:
    """Return whether tensors have the names of mmdetection."""
    return any(key.startswith(("neck.", *_HEADS)) for key in state)


def from_mmdetection(
    state: Mapping[str, Tensor], meta: Mapping[str, Any], detector: str, file: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under torchvision's names, and what differs from torchvision's detector.

    Tensors without a counterpart keep their names.

    Args:
        state: mmdetection's state_dict.
        meta: ``meta`` of its checkpoint.
        detector: name of the detector's class.
        file: for messages.

    Raises:
        InputError: the backbone is of caffe's style: strides are in other convolutions, and images
            are BGR with another normalisation.
    """
    mean = state.get("backbone.bn1.running_mean")
    text = str(meta.get("cfg") or meta.get("config") or "")
    # Caffe's weights have no batch statistics; the converted ones are 0 and 1.
    if re.search(r"style\W{1,4}caffe", text) or (mean is not None and not mean.any()):
        raise InputError(
            f"weights {file}: a ResNet of caffe's style (strides in the 1x1 convolutions, BGR "
            "images), which torchvision does not have; use a checkpoint with style='pytorch'"
        )
    levels = len({key.split(".")[2] for key in state if key.startswith("neck.lateral_convs.")})
    names = [(re.compile(a), b) for a, b in (*_BACKBONE, *_NAMES.get(detector, ()))]
    renamed = {_name(key, detector, levels, names): value for key, value in state.items()}
    if detector == "FasterRCNN":
        _move_background(renamed)
    return renamed, [_DIFFERENT[detector]] if detector in _DIFFERENT else []


def _name(key: str, detector: str, levels: int, names: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in names:
        if found := pattern.fullmatch(key):
            return found.expand(replacement)
    if found := _PYRAMID.fullmatch(key):
        level = int(found[1])
        if level < levels:
            return f"backbone.fpn.layer_blocks.{level}.0.{found[2]}"
        if detector == "FCOS":  # from p5 and relu(p6), as in torchvision
            return f"backbone.fpn.extra_blocks.p{6 + level - levels}.{found[2]}"
    if detector == "FCOS" and (found := _FCOS_TOWER.fullmatch(key)):
        # torchvision's tower is one sequence of convolution, norm and activation.
        index = 3 * int(found[2]) + (found[3] == "gn")
        return f"head.{dict(_TOWERS)[found[1]]}_head.conv.{index}.{found[4]}"
    return key


def _move_background(state: dict[str, Tensor]) -> None:
    """Move the background from the last channel to the first, and add it to the box layer."""
    for name in ("weight", "bias"):
        logits = f"roi_heads.box_predictor.cls_score.{name}"
        deltas = f"roi_heads.box_predictor.bbox_pred.{name}"
        if logits not in state or deltas not in state:
            continue
        classes, channels = len(state[deltas]) // 4, len(state[logits])
        if channels != classes:  # softmax, with a background
            state[logits] = state[logits].roll(1, dims=0)
            # The background's box is never used.
            boxes = torch.cat([torch.zeros_like(state[deltas][:4]), state[deltas]])
            state[deltas] = boxes
            if channels != classes + 1:
                del state[deltas]  # one box for all classes
