"""The further losses from their papers' equations, in numpy, for the whole batch."""

import numpy as np


def _sizes(boxes):
    """Centre x, centre y, width, height of each box."""
    x1, y1, x2, y2 = boxes.T
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def gcd(pred, target, **_):
    """The distance once in units of each box's covariance, and their mean."""
    x, y, w, h = _sizes(pred)
    xg, yg, wg, hg = _sizes(target)
    in_pred = ((x - xg) / w) ** 2 + ((y - yg) / h) ** 2
    in_pred = in_pred + (((w - wg) / w) ** 2 + ((h - hg) / h) ** 2) / 4
    in_target = ((x - xg) / wg) ** 2 + ((y - yg) / hg) ** 2
    in_target = in_target + (((w - wg) / wg) ** 2 + ((h - hg) / hg) ** 2) / 4
    return 1 - np.exp(-np.sqrt((in_pred + in_target) / 2))


def normalized_l1(pred, target, *, image_size, **_):
    width, height = image_size.T
    errors = [abs(a - b) for a, b in zip(_sizes(pred), _sizes(target), strict=True)]
    return np.stack([e / s for e, s in zip(errors, [width, height] * 2, strict=True)], -1)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _entropy(p, y):
    return -y * np.log(p) - (1 - y) * np.log(1 - p)


def _one_hot(labels, channels):
    return labels[:, None] == np.arange(channels)


def _soft(pred, target, quality):
    """Return the quality of each channel, which are positive, and which count."""
    if quality is None:
        return np.clip(target, 0, 1), target > 0, target >= 0
    own = _one_hot(target, pred.shape[1])
    return own * quality[:, None], own, np.broadcast_to(target[:, None] >= 0, pred.shape)


def ia_bce(pred, target, *, quality=None, alpha, gamma, min_target, constant=None, **_):
    """``constant``: the logits that the target t is taken of; by default ``pred``."""
    q, own, counts = _soft(pred, target, quality)
    s = _sigmoid(pred)
    score = s if constant is None else _sigmoid(constant)
    t = np.maximum(score**alpha * q ** (1 - alpha), min_target)
    return counts * np.where(own, _entropy(s, t), s**gamma * _entropy(s, 0))


def slide(pred, target, *, quality=None, min_mean, **_):
    y, own, counts = _soft(pred, target, quality)
    mu = max(y[own].mean() if own.any() else 0.0, min_mean)
    f = np.select([y <= mu - 0.1, y < mu], [1.0, np.exp(1 - mu)], np.exp(1 - y))
    return counts * f * _entropy(_sigmoid(pred), y)


def label_smoothing(pred, target, *, use_sigmoid, epsilon, **_):
    channels = pred.shape[1]
    kept = target >= 0
    own = _one_hot(target, channels)
    if use_sigmoid:
        q = (1 - epsilon) * own + epsilon / 2
        return _entropy(_sigmoid(pred), q) * kept[:, None]
    q = (1 - epsilon) * own + epsilon / channels
    p = np.exp(pred) / np.exp(pred).sum(1, keepdims=True)
    return -(q * np.log(p)).sum(1) * kept


def equalized_focal(pred, target, *, gamma, alpha, scale, state, **_):
    own = _one_hot(target, pred.shape[1])
    positive, negative = state["positive_gradient"], state["negative_gradient"]
    g = np.ones_like(positive, dtype=float)
    np.divide(positive, negative, out=g, where=negative > 0)
    gamma_c = gamma + scale * (1 - np.minimum(g, 1))
    p = _sigmoid(pred)
    p_t = np.where(own, p, 1 - p)
    a = 1.0 if alpha is None else np.where(own, alpha, 1 - alpha)
    loss = -a * gamma_c / gamma * (1 - p_t) ** gamma_c * np.log(p_t)
    return loss * (target >= 0)[:, None]


def class_weights(class_counts, beta):
    n = np.array(class_counts, dtype=float)
    effective = n if beta == 1 else (1 - beta**n) / (1 - beta)
    return len(n) / effective / (1 / effective).sum()


def class_balanced_focal(pred, target, *, loss, class_counts, beta, **_):
    """FocalLoss inside: sigmoid, with its own gamma and alpha."""
    inner = loss.params()
    plain = {"positive_gradient": np.zeros(1), "negative_gradient": np.zeros(1)}
    focal = equalized_focal(
        pred, target, gamma=inner["gamma"], alpha=inner["alpha"], scale=0.0, state=plain
    )
    weights = np.append(class_weights(class_counts, beta), 1.0)
    return focal * weights[np.clip(target, 0, len(class_counts))][:, None]


def nothing(*_, **__):
    """No part is constant in the gradient but what the function is given."""
    return {}


def logits_of_target(pred, *_, **__):
    return {"constant": pred}


COUNTS = {"loss": "FocalLoss", "class_counts": [50, 20, 5]}
REFERENCES = {
    "GCDLoss": [({}, gcd, nothing)],
    "NormalizedL1Loss": [({}, normalized_l1, nothing)],
    "IoUAwareBCELoss": [
        ({}, ia_bce, logits_of_target),
        ({"alpha": 0.6, "gamma": 1.0, "min_target": 0.1}, ia_bce, logits_of_target),
    ],
    "SlideLoss": [({}, slide, nothing), ({"min_mean": 0.7}, slide, nothing)],
    "LabelSmoothingLoss": [
        ({}, label_smoothing, nothing),
        ({"epsilon": 0.3, "use_sigmoid": True}, label_smoothing, nothing),
    ],
    "EqualizedFocalLoss": [
        ({"num_classes": 3}, equalized_focal, nothing),
        ({"num_classes": 3, "gamma": 1.5, "alpha": None, "scale": 4.0}, equalized_focal, nothing),
    ],
    "ClassBalanced": [
        (COUNTS, class_balanced_focal, nothing),
        ({**COUNTS, "beta": 1.0}, class_balanced_focal, nothing),
    ],
}
