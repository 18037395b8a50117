"""The elementwise losses, the IoU family, wrappers and composites.

For a whole batch, from the papers' equations in :mod:`loss_references`. The third entry of a
reference returns what is constant in the gradient.
"""

import math

import loss_references as ref
import numpy as np


def box_loss(function):
    """Turn a loss of one box into a loss of a batch."""
    return lambda pred, target, **_: ref.per_box(function, pred, target)


def element_loss(function, *names):
    """Turn a loss of one element into a loss of a batch, with the named arguments."""

    def loss(pred, target, **params):
        return ref.per_element(function, pred, target, **{n: params[n] for n in names})

    return loss


def ious(pred, target):
    return ref.per_box(lambda b, g: ref.geometry(b, g)["iou"], pred, target)


# CIoU: alpha is constant


def ciou_constants(pred, target, *, alpha_gate=0.0, **_):
    return {"alpha": ref.per_box(lambda b, g: ref.ciou_alpha(b, g, alpha_gate), pred, target)}


def ciou(pred, target, *, alpha=None, **params):
    if alpha is None:
        alpha = ciou_constants(pred, target, **params)["alpha"]
    return ref.per_box(ref.ciou, pred, target, alpha)


# Focal-EIoU and FocalIoU: W = IoU^gamma is constant, normalised over the batch


def focal_weight(pred, target, *, gamma, **_):
    w = ious(pred, target) ** gamma
    return {"w": w / w.sum() * len(w)}


def focal_eiou(pred, target, *, gamma, w=None, **_):
    w = focal_weight(pred, target, gamma=gamma)["w"] if w is None else w
    return w * ref.per_box(ref.eiou, pred, target)


def focal_ciou_constants(pred, target, **params):
    return focal_weight(pred, target, **params) | ciou_constants(pred, target)


def focal_ciou(pred, target, *, gamma, w=None, alpha=None, **_):
    w = focal_weight(pred, target, gamma=gamma)["w"] if w is None else w
    return w * ciou(pred, target, alpha=alpha)


# Inner-IoU and Focaler-IoU of CIoU: L + IoU - IoU'


def shrunk(boxes, ratio):
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * ratio
    return np.concatenate([center - half, center + half], 1)


def inner_ciou(pred, target, *, ratio, alpha=None, **_):
    inner = ious(shrunk(pred, ratio), shrunk(target, ratio))
    return ciou(pred, target, alpha=alpha) + ious(pred, target) - inner


def focaler_ciou(pred, target, *, d, u, alpha=None, **_):
    stretched = np.clip((ious(pred, target) - d) / (u - d), 0, 1)
    return ciou(pred, target, alpha=alpha) + ious(pred, target) - stretched


def inner_giou(pred, target, *, ratio, **_):
    inner = ious(shrunk(pred, ratio), shrunk(target, ratio))
    return ref.per_box(ref.giou, pred, target) + ious(pred, target) - inner


# Alpha-IoU: a power of IoU and of each penalty


def alpha_iou(pred, target, *, alpha, **_):
    return 1 - ious(pred, target) ** alpha


def alpha_ciou_constants(pred, target, **_):
    return {"trade_off": ciou_constants(pred, target)["alpha"]}


def alpha_ciou(pred, target, *, alpha, trade_off=None, **_):
    if trade_off is None:
        trade_off = alpha_ciou_constants(pred, target)["trade_off"]
    iou = ious(pred, target)
    center = ref.per_box(ref.diou, pred, target) - 1 + iou
    shape = trade_off * ref.per_box(ref.ciou_v, pred, target)
    return 1 - iou**alpha + center**alpha + shape**alpha


# Composites: L1 on deltas, summed over a box, with a loss of the box


def l1_of_box(pred_deltas, target_deltas):
    return np.abs(pred_deltas - target_deltas).sum(-1)


def l1_plus_giou(pred, target, *, pred_deltas, target_deltas, **_):
    return l1_of_box(pred_deltas, target_deltas) + ref.per_box(ref.giou, pred, target)


def l1_times_eiou(pred, target, *, pred_deltas, target_deltas, **_):
    return l1_of_box(pred_deltas, target_deltas) * ref.per_box(ref.eiou, pred, target)


def focal_l1_eiou(pred, target, *, logits, labels, **inputs):
    one_hot = labels[:, None] == np.arange(logits.shape[1])
    focal = ref.per_element(ref.sigmoid_focal, logits, one_hot).sum(-1)
    return focal * l1_times_eiou(pred, target, **inputs)


def nothing(pred, target, **_):
    """Nothing is constant: the full gradient of the reference is compared."""
    return {}


def only_ciou_constants(pred, target, **_):
    return ciou_constants(pred, target)


FOCAL_L1_EIOU = ["FocalLoss", "L1Loss", "EIoULoss"]

REFERENCES = {
    "L1Loss": [({}, element_loss(lambda x, y: abs(x - y)), nothing)],
    "MSELoss": [({}, element_loss(lambda x, y: (x - y) ** 2), nothing)],
    "SmoothL1Loss": [
        ({}, element_loss(ref.smooth_l1, "beta"), nothing),
        ({"beta": 1 / 9}, element_loss(ref.smooth_l1, "beta"), nothing),
    ],
    "HuberLoss": [
        ({}, element_loss(ref.huber, "delta"), nothing),
        ({"delta": 0.3}, element_loss(ref.huber, "delta"), nothing),
    ],
    "FocalL1Loss": [
        ({}, element_loss(ref.focal_l1, "beta"), nothing),
        ({"beta": 1.0}, element_loss(ref.focal_l1, "beta"), nothing),
        ({"beta": 1 / math.e}, element_loss(ref.focal_l1, "beta"), nothing),
    ],
    "IoULoss": [
        ({}, box_loss(ref.iou_log), nothing),
        ({"mode": "linear"}, box_loss(ref.iou_linear), nothing),
        ({"linear": True}, box_loss(ref.iou_linear), nothing),
        ({"mode": "square"}, box_loss(ref.iou_square), nothing),
    ],
    "GIoULoss": [({}, box_loss(ref.giou), nothing)],
    "DIoULoss": [({}, box_loss(ref.diou), nothing)],
    "CIoULoss": [({}, ciou, ciou_constants), ({"alpha_gate": 0.5}, ciou, ciou_constants)],
    "EIoULoss": [({}, box_loss(ref.eiou), nothing)],
    "FocalEIoULoss": [
        ({}, focal_eiou, focal_weight),
        ({"gamma": 2.0}, focal_eiou, focal_weight),
    ],
    "FocalIoU": [
        ({}, focal_ciou, focal_ciou_constants),
        ({"loss": "EIoULoss", "gamma": 1.5}, focal_eiou, focal_weight),
    ],
    "InnerIoU": [
        ({}, inner_ciou, only_ciou_constants),
        ({"loss": "GIoULoss", "ratio": 1.3}, inner_giou, nothing),
    ],
    "FocalerIoU": [
        ({}, focaler_ciou, only_ciou_constants),
        ({"d": 0.2, "u": 0.8}, focaler_ciou, only_ciou_constants),
    ],
    "AlphaIoU": [
        ({}, alpha_ciou, alpha_ciou_constants),
        ({"alpha": 1.5}, alpha_ciou, alpha_ciou_constants),
        ({"loss": "IoULoss", "alpha": 2.0}, alpha_iou, nothing),
    ],
    "AlphaIoULoss": [({}, alpha_iou, nothing), ({"alpha": 1.5}, alpha_iou, nothing)],
    "SumLoss": [({}, l1_plus_giou, nothing)],
    "ProductLoss": [
        ({}, l1_times_eiou, nothing),
        ({"losses": FOCAL_L1_EIOU}, focal_l1_eiou, nothing),
    ],
}
