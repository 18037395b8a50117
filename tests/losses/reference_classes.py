"""Losses of soft targets, and of hard ones with other focal terms, from the papers' equations.

Arrays of the whole batch in float64; nothing here is shared with the package. ``target`` is labels
``[N]`` with ``quality`` ``[N]``, or values ``[N, K]``. What is constant in a gradient stands beside
the loss as the third entry.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def spread(pred, target, quality=None):
    """Return for each channel its target, whether it is the label's, and whether it counts."""
    if target.shape == pred.shape:
        return np.maximum(target, 0), target > 0, target >= 0
    own = target[:, None] == np.arange(pred.shape[1])
    value = np.ones(len(target)) if quality is None else quality
    counts = np.broadcast_to(target[:, None] >= 0, pred.shape)
    return np.where(own, value[:, None], 0.0), own, counts


def cross_entropy(p, y):
    return -y * np.log(p) - (1 - y) * np.log(1 - p)


def quality_focal(pred, target, *, quality=None, beta, **_):
    y, _own, counts = spread(pred, target, quality)
    p = sigmoid(pred)
    return np.where(counts, np.abs(y - p) ** beta * cross_entropy(p, y), 0.0)


def varifocal(pred, target, *, quality=None, alpha, gamma, iou_weighted, **_):
    q, _own, counts = spread(pred, target, quality)
    p = sigmoid(pred)
    positive = (q if iou_weighted else 1.0) * cross_entropy(p, q)
    negative = -alpha * p**gamma * np.log(1 - p)
    return np.where(counts, np.where(q > 0, positive, negative), 0.0)


def matchability_aware(pred, target, *, quality=None, gamma, constant=None, **_):
    """``constant``: the logits that the negatives' weight is taken of; by default ``pred``."""
    q, own, counts = spread(pred, target, quality)
    p = sigmoid(pred)
    weight = sigmoid(pred if constant is None else constant) ** gamma
    loss = np.where(own, cross_entropy(p, q**gamma), -weight * np.log(1 - p))
    return np.where(counts, loss, 0.0)


def poly_focal(pred, target, *, eps1, gamma, alpha, **_):
    y, _own, counts = spread(pred, target)
    p = sigmoid(pred)
    miss = 1 - (y * p + (1 - y) * (1 - p))
    alpha_t = 1.0 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
    loss = alpha_t * (miss**gamma * cross_entropy(p, y) + eps1 * miss ** (gamma + 1))
    return np.where(counts, loss, 0.0)


def asymmetric(pred, target, *, gamma_pos, gamma_neg, clip, **_):
    y, _own, counts = spread(pred, target)
    p = sigmoid(pred)
    shifted = np.maximum(p - clip, 0)
    positive = -((1 - p) ** gamma_pos) * np.log(p)
    negative = -(shifted**gamma_neg) * np.log(1 - shifted)
    return np.where(counts, y * positive + (1 - y) * negative, 0.0)


def distribution_focal(pred, target, **_):
    log_s = pred - np.log(np.exp(pred).sum(-1, keepdims=True))
    loss = []
    for row, y in zip(log_s, target, strict=True):
        # The shares of the whole numbers: a tent of width 1 about y.
        shares = np.maximum(0, 1 - np.abs(np.arange(len(row)) - y))
        loss.append(-(shares * row).sum())
    return np.array(loss)


def nothing(pred, target, **_):
    """Nothing is constant: the whole of the reference is differentiated."""
    return {}


def logits_of_weight(pred, target, **_):
    return {"constant": pred}


REFERENCES = {
    "QualityFocalLoss": [
        ({}, quality_focal, nothing),
        ({"beta": 0.5}, quality_focal, nothing),
        ({"beta": 0.0}, quality_focal, nothing),
    ],
    "VarifocalLoss": [
        ({}, varifocal, nothing),
        ({"alpha": 0.3, "gamma": 0.5, "iou_weighted": False}, varifocal, nothing),
    ],
    "MatchabilityAwareLoss": [
        ({}, matchability_aware, logits_of_weight),
        ({"gamma": 0.5}, matchability_aware, logits_of_weight),
    ],
    "PolyFocalLoss": [
        ({}, poly_focal, nothing),
        ({"eps1": -1.0, "gamma": 0.5, "alpha": None}, poly_focal, nothing),
    ],
    "AsymmetricLoss": [
        ({}, asymmetric, nothing),
        ({"gamma_pos": 0.5, "gamma_neg": 1.5, "clip": 0.2}, asymmetric, nothing),
        ({"gamma_pos": 1.0, "gamma_neg": 0.0, "clip": 0.0}, asymmetric, nothing),
    ],
    "DistributionFocalLoss": [({}, distribution_focal, nothing)],
}
