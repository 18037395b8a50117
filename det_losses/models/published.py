"""Published settings of losses by detector and slot: loss weight and parameters, with sources.

A slot completes the config of its loss by one rule, whether the config comes from a file, from
Python or from a command line. Given arguments are kept. Missing ones are taken from the published
setting of that loss in that slot of that detector. Without a published setting, the loss weight is
the slot's fallback for losses of that kind.

- A wrapper (InnerIoU, ClassBalanced) has the weight of the wrapped loss, unless it has its own
  entry. The wrapped loss gets its parameters, but no weight.
- The losses of a SumLoss get their weights and parameters, and the sum has weight 1. The losses of
  a ProductLoss get their parameters only.

In the sources, "mmdet" is a config of open-mmlab/mmdetection 3.x unless another version is given,
and "torchvision" is torchvision 0.29.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn

from det_losses.errors import InputError
from det_losses.generators import generators_kept
from det_losses.losses.composite import ProductLoss
from det_losses.losses.core.base import Loss
from det_losses.losses.core.build import (
    build_loss,
    check_arguments,
    loss_class,
    loss_config,
    with_classes,
)
from det_losses.losses.core.text import LOSS_ARGUMENTS
from det_losses.registry import MODELS, find


@dataclass(frozen=True)
class Setting:
    """Defaults for the arguments missing in a loss's config.

    Attributes:
        loss_weight: factor on the loss.
        source: where the setting was published, or why it was chosen.
        parameters: further constructor arguments.
    """

    loss_weight: float
    source: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SlotSettings:
    """The settings of one slot.

    Attributes:
        losses: settings by the name of the loss.
        fallback: settings of all other losses, by the space of a box loss (``"delta"``,
            ``"decoded"``) or by the kind of other losses.
    """

    losses: Mapping[str, Setting]
    fallback: Mapping[str, Setting]


def _unpublished(loss_weight: float, reason: str) -> Setting:
    return Setting(loss_weight, f"no published setting; {loss_weight:g}, {reason}")


def _class_slot(losses: Mapping[str, Setting], reason: str) -> SlotSettings:
    return SlotSettings(losses, {"classification": _unpublished(1.0, reason)})


def _box_slot(losses: Mapping[str, Setting], delta: Setting, decoded: Setting) -> SlotSettings:
    return SlotSettings(losses, {"delta": delta, "decoded": decoded})


_AS_LN = _unpublished(1.0, "as the other l_n losses")
_ZHANG = Setting(2.5, "2101.08158, for its IoU-type losses")
_MMDET_GFL = "2006.04388; mmdet gfl_r50_fpn"

_FCOS: Mapping[str, SlotSettings] = {
    "loss_cls": _class_slot(
        {
            "FocalLoss": Setting(1.0, "1904.01355; torchvision; mmdet fcos_r50-caffe_fpn_gn-head"),
            "QualityFocalLoss": Setting(1.0, _MMDET_GFL),
            "VarifocalLoss": Setting(1.0, "mmdet vfnet_r50_fpn"),
        },
        "as the focal loss",
    ),
    "loss_bbox": _box_slot(
        {
            "IoULoss": Setting(1.0, "1904.01355; mmdet fcos_r50-caffe_fpn_gn-head"),
            "GIoULoss": Setting(
                1.0,
                "torchvision; mmdet fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou",
            ),
        },
        delta=_unpublished(1.0, "as the IoU loss"),
        decoded=_unpublished(1.0, "as the GIoU loss"),
    ),
    "loss_centerness": _class_slot(
        {
            "BinaryCrossEntropyLoss": Setting(
                1.0, "1904.01355; torchvision; mmdet fcos_r50-caffe_fpn_gn-head"
            )
        },
        "as the cross entropy",
    ),
    "loss_dfl": SlotSettings(
        {"DistributionFocalLoss": Setting(0.25, _MMDET_GFL)},
        {"distribution": _unpublished(0.25, "as the distribution focal loss")},
    ),
}

SETTINGS: Mapping[str, Mapping[str, SlotSettings]] = MappingProxyType(
    {
        "RetinaNet": {
            "loss_cls": _class_slot(
                {
                    "FocalLoss": Setting(
                        1.0, "1708.02002 (alpha 0.25, gamma 2); torchvision; mmdet"
                    ),
                    "BinaryCrossEntropyLoss": Setting(
                        0.5,
                        "1708.02002, Table 1a: balanced by alpha 0.5, which halves the loss",
                    ),
                    "GHMCLoss": Setting(
                        1.0, "mmdet 2.x retinanet_ghm_r50_fpn", {"bins": 30, "momentum": 0.75}
                    ),
                },
                "as the focal loss",
            ),
            "loss_bbox": _box_slot(
                {
                    "L1Loss": Setting(1.0, "torchvision; mmdet retinanet_r50_fpn"),
                    "SmoothL1Loss": Setting(
                        1.0, "mmdet 1.x retinanet_r50_fpn (beta 0.11, about 1/9)", {"beta": 0.11}
                    ),
                    "BalancedL1Loss": Setting(
                        1.0,
                        "mmdet 2.x libra_retinanet_r50_fpn",
                        {"beta": 0.11, "as_released": True},
                    ),
                    "GHMRLoss": Setting(10.0, "mmdet 2.x retinanet_ghm_r50_fpn", {"momentum": 0.7}),
                    "IoULoss": _ZHANG,
                    "GIoULoss": _ZHANG,
                    "DIoULoss": _ZHANG,
                    "CIoULoss": _ZHANG,
                    "EIoULoss": _ZHANG,
                    "FocalEIoULoss": _ZHANG,
                },
                delta=_AS_LN,
                decoded=_unpublished(2.5, "as the IoU-type losses in 2101.08158"),
            ),
        },
        "FasterRCNN": {
            "loss_rpn_cls": _class_slot(
                {"BinaryCrossEntropyLoss": Setting(1.0, "torchvision; mmdet faster-rcnn_r50_fpn")},
                "as the cross entropy",
            ),
            "loss_rpn_bbox": _box_slot(
                {
                    "SmoothL1Loss": Setting(1.0, "torchvision", {"beta": 1 / 9}),
                    "L1Loss": Setting(1.0, "mmdet faster-rcnn_r50_fpn"),
                    "IoULoss": Setting(
                        10.0, "mmdet cascade-rpn_r50-caffe_fpn (1 - IoU)", {"mode": "linear"}
                    ),
                },
                delta=_AS_LN,
                decoded=_unpublished(10.0, "as mmdet's IoU loss in an RPN"),
            ),
            "loss_cls": _class_slot(
                {"CrossEntropyLoss": Setting(1.0, "torchvision; mmdet faster-rcnn_r50_fpn")},
                "as the cross entropy",
            ),
            "loss_bbox": _box_slot(
                {
                    "SmoothL1Loss": Setting(1.0, "torchvision", {"beta": 1 / 9}),
                    "L1Loss": Setting(1.0, "mmdet faster-rcnn_r50_fpn"),
                    "DynamicSmoothL1Loss": Setting(
                        1.0, "2004.06002 (2 images per device); mmdet dynamic-rcnn_r50_fpn"
                    ),
                    "BalancedL1Loss": Setting(1.0, "mmdet libra-faster-rcnn_r50_fpn"),
                    "BoundedIoULoss": Setting(10.0, "mmdet faster-rcnn_r50_fpn_bounded-iou"),
                    "IoULoss": Setting(10.0, "mmdet faster-rcnn_r50_fpn_iou"),
                    "GIoULoss": Setting(10.0, "mmdet faster-rcnn_r50_fpn_giou"),
                    "DIoULoss": Setting(
                        10.0, "as mmdet's GIoU loss (1911.08287 has 12 for the whole family)"
                    ),
                    "CIoULoss": Setting(12.0, "mmdet faster-rcnn_r50_fpn_ciou; 1911.08287"),
                },
                delta=_AS_LN,
                decoded=_unpublished(10.0, "as mmdet's GIoU loss in a RoI head"),
            ),
        },
        "FCOS": _FCOS,
        "GFL": {
            **_FCOS,
            "loss_bbox": _box_slot(
                {"GIoULoss": Setting(2.0, _MMDET_GFL)},
                delta=_unpublished(1.0, "as in FCOS"),
                decoded=_unpublished(2.0, "as the GIoU loss of GFL"),
            ),
        },
    }
)
_NO_SETTINGS = SlotSettings({}, {})


def table_of(model: Mapping[str, Any]) -> str:
    """Return the name of the table that a model's config uses: RetinaNet, FasterRCNN, FCOS or GFL.

    For a detector without a table, this is its class name, which has no published settings.

    Args:
        model: config of the model, with ``type``.
    """
    cls = find(MODELS, model["type"]) if isinstance(model["type"], str) else model["type"]
    return cls.settings_table(model) if hasattr(cls, "settings_table") else cls.__name__


def complete(detector: str, slot: str, loss: str | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the config of a loss completed by the slot's settings, and their sources.

    A complete config is returned unchanged.

    Args:
        detector: name of the table, see :func:`table_of`.
        slot: such as ``"loss_bbox"``.
        loss: a name, a call such as ``"GIoULoss(eps=1e-6)"``, or a config.

    Returns:
        The config, and one line with the sources of weight and parameters.

    Raises:
        NotRegisteredError: no such loss; the nearest names are suggested.
        InputError: the name is registered but is not a loss, the config cannot be read, or a
            parameter is out of range.
        InputTypeError: an unknown parameter.

    Example:
        >>> complete("RetinaNet", "loss_bbox", "EIoULoss(eps=1e-6)")
        ({'type': 'EIoULoss', 'eps': 1e-06, 'loss_weight': 2.5}, \
'loss_weight 2.5: 2101.08158, for its IoU-type losses; eps given')
    """
    settings = SETTINGS.get(detector, {}).get(slot, _NO_SETTINGS)
    config, sources = _complete(settings, loss, weighted=True)
    return config, "; ".join(sources)


def _complete(settings: SlotSettings, loss: Any, weighted: bool) -> tuple[Any, list[str]]:
    if isinstance(loss, nn.Module):
        return loss, ["built by the caller"]
    config = loss_config(loss)
    cls = loss_class(config)
    if not (hasattr(cls, "kind") or (inspect.isclass(cls) and issubclass(cls, Loss))):
        raise InputError(f"{cls.__name__} is registered, but it is not a loss (it has no `kind`)")
    arguments = {key: value for key, value in config.items() if key != "type"}
    check_arguments(cls, arguments, partial=True)
    given = [key for key in arguments if key not in LOSS_ARGUMENTS]
    inner, inner_sources = _complete_inner(settings, cls, config)
    config |= inner
    setting = _setting(settings, config)
    added = dict(setting.parameters)
    if weighted and "loss_weight" in inspect.signature(cls).parameters:
        added = {"loss_weight": setting.loss_weight, **added}
    added = {key: value for key, value in added.items() if key not in config}
    sources = []
    if added:
        values = ", ".join(f"{key} {_short(value)}" for key, value in added.items())
        sources.append(f"{values}: {setting.source}")
    if given:
        sources.append(f"{', '.join(given)} given")
    return {**config, **added}, sources + inner_sources


def _complete_inner(
    settings: SlotSettings, cls: type, config: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Complete the wrapped or combined losses; return them by argument name, and their sources."""
    weighted = "losses" in config and not issubclass(cls, ProductLoss)
    each = config.get("losses", [config["loss"]] if "loss" in config else [])
    if not isinstance(each, (list, tuple)):
        return {}, []  # refused when the loss is built
    done = [_complete(settings, loss, weighted) for loss in each]
    sources = [f"{_name(loss)}: {', '.join(source)}" for loss, source in done if source]
    losses = [loss for loss, _ in done]
    if "losses" in config:
        return {"losses": losses}, sources
    return ({"loss": losses[0]} if losses else {}), sources


def _setting(settings: SlotSettings, loss: Mapping[str, Any] | nn.Module) -> Setting:
    """Return the setting of a loss whose inner losses are complete."""
    if (name := _name(loss)) in settings.losses:
        return settings.losses[name]
    if not isinstance(loss, nn.Module):
        if "losses" in loss and issubclass(loss_class(loss), ProductLoss):
            return Setting(1.0, "no published setting of a product; 1")
        if "losses" in loss:
            return Setting(1.0, "its losses have their own weights")
        if "loss" in loss:
            setting = _setting(settings, loss["loss"])
            return Setting(setting.loss_weight, f"as {_name(loss['loss'])}, {setting.source}")
        with generators_kept():  # the constructor of a loss may draw random numbers
            loss = build_loss(with_classes(loss, 1))
    group = getattr(loss, "space", None) or getattr(loss, "kind", None)
    return settings.fallback.get(group, Setting(1.0, "no published setting; 1"))


def _name(loss: Mapping[str, Any] | nn.Module) -> str:
    return (type(loss) if isinstance(loss, nn.Module) else loss_class(loss)).__name__


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
