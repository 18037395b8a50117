"""Stateless classification losses from their papers' equations, in numpy.

Arrays of a whole batch in float64; no code is shared with the package. ``target`` is labels
``[N]`` (with ``quality`` ``[N]`` where a loss takes it) or values ``[N, K]``. The third entry of a
reference returns what is constant in the gradient.
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


def weighted(loss, counts, class_weight):
    """Zero where ignored; each channel times the weight of its class."""
    factor = 1.0 if class_weight is None else np.array(class_weight)
    return np.where(counts, loss, 0.0) * factor


def binary_cross_entropy(pred, target, *, class_weight=None, **_):
    y, _own, counts = spread(pred, target)
    return weighted(cross_entropy(sigmoid(pred), y), counts, class_weight)


def mmdet_cross_entropy(pred, target, *, class_weight, **_):
    """mmdetection's sigmoid form: the weights apply to the positive term only."""
    y, _own, counts = spread(pred, target)
    p = sigmoid(pred)
    loss = -np.array(class_weight) * y * np.log(p) - (1 - y) * np.log(1 - p)
    return np.where(counts, loss, 0.0)


def sigmoid_focal(pred, target, *, gamma, alpha, class_weight, **_):
    return poly_focal(pred, target, eps1=0, gamma=gamma, alpha=alpha, class_weight=class_weight)


def quality_focal(pred, target, *, quality=None, beta, class_weight, **_):
    y, _own, counts = spread(pred, target, quality)
    p = sigmoid(pred)
    return weighted(np.abs(y - p) ** beta * cross_entropy(p, y), counts, class_weight)


def varifocal(
    pred, target, *, quality=None, alpha, gamma, iou_weighted, class_weight, constant=None, **_
):
    """``constant``: the logits for the focusing factor; by default ``pred``."""
    q, _own, counts = spread(pred, target, quality)
    p = sigmoid(pred)
    focusing = sigmoid(pred if constant is None else constant) ** gamma
    positive = (q if iou_weighted else 1.0) * cross_entropy(p, q)
    negative = -alpha * focusing * np.log(1 - p)
    return weighted(np.where(q > 0, positive, negative), counts, class_weight)


def matchability_aware(pred, target, *, quality=None, gamma, class_weight, constant=None, **_):
    """``constant``: the logits for the weight of negatives; by default ``pred``."""
    q, own, counts = spread(pred, target, quality)
    p = sigmoid(pred)
    focusing = sigmoid(pred if constant is None else constant) ** gamma
    loss = np.where(own, cross_entropy(p, q**gamma), -focusing * np.log(1 - p))
    return weighted(loss, counts, class_weight)


def poly_focal(pred, target, *, eps1, gamma, alpha, class_weight, **_):
    y, _own, counts = spread(pred, target)
    p = sigmoid(pred)
    miss = 1 - (y * p + (1 - y) * (1 - p))
    alpha_t = 1.0 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
    loss = alpha_t * (miss**gamma * cross_entropy(p, y) + eps1 * miss ** (gamma + 1))
    return weighted(loss, counts, class_weight)


def asymmetric(pred, target, *, gamma_pos, gamma_neg, clip, class_weight, constant=None, **_):
    """``constant``: the logits for the focusing factors; by default ``pred``."""
    y, _own, counts = spread(pred, target)
    p, fixed = sigmoid(pred), sigmoid(pred if constant is None else constant)
    positive = -((1 - fixed) ** gamma_pos) * np.log(p)
    shifted = np.maximum(p - clip, 0)
    negative = -(np.maximum(fixed - clip, 0) ** gamma_neg) * np.log(1 - shifted)
    return weighted(y * positive + (1 - y) * negative, counts, class_weight)


def ia_bce(
    pred, target, *, quality=None, alpha, gamma, min_target, class_weight, constant=None, **_
):
    """``constant``: the logits for the target t; by default ``pred``."""
    q, own, counts = spread(pred, target, quality)
    s, fixed = sigmoid(pred), sigmoid(pred if constant is None else constant)
    t = np.maximum(fixed**alpha * q ** (1 - alpha), min_target)
    loss = np.where(own, cross_entropy(s, t), s**gamma * cross_entropy(s, 0))
    return weighted(loss, counts, class_weight)


def slide(pred, target, *, quality=None, min_mean, class_weight, **_):
    y, own, counts = spread(pred, target, quality)
    mu = max(y[own].mean() if own.any() else 0.0, min_mean)
    f = np.select([y <= mu - 0.1, y < mu], [1.0, np.exp(1 - mu)], np.exp(1 - y))
    return weighted(f * cross_entropy(sigmoid(pred), y), counts, class_weight)


def log_softmax(pred):
    return pred - np.log(np.exp(pred).sum(-1, keepdims=True))


def of_label(rows, target, class_weight=None):
    """Take each row's entry at its label, times the label's weight; 0 for ignored rows."""
    factor = np.ones(rows.shape[1]) if class_weight is None else np.array(class_weight)
    label = np.maximum(target, 0)
    return np.where(target >= 0, (rows * factor)[np.arange(len(rows)), label], 0.0)


def softmax_cross_entropy(pred, target, *, class_weight, **_):
    return of_label(-log_softmax(pred), target, class_weight)


def softmax_focal(pred, target, *, gamma, alpha, class_weight, **_):
    log_p = log_softmax(pred)
    alpha_t = np.append(np.full(pred.shape[1] - 1, alpha), 1 - alpha)
    loss = -alpha_t * (1 - np.exp(log_p)) ** gamma * log_p
    return of_label(loss, target, class_weight)


def poly_cross_entropy(pred, target, *, eps1, class_weight, **_):
    log_p = log_softmax(pred)
    return of_label(-log_p + eps1 * (1 - np.exp(log_p)), target, class_weight)


def label_smoothing(pred, target, *, use_sigmoid, epsilon, **_):
    channels = pred.shape[1]
    kept = target >= 0
    own = target[:, None] == np.arange(channels)
    if use_sigmoid:
        q = (1 - epsilon) * own + epsilon / 2
        return cross_entropy(sigmoid(pred), q) * kept[:, None]
    q = (1 - epsilon) * own + epsilon / channels
    return -(q * log_softmax(pred)).sum(1) * kept


def class_weights(class_counts, beta):
    n = np.array(class_counts, dtype=float)
    effective = n if beta == 1 else (1 - beta**n) / (1 - beta)
    return len(n) / effective / (1 / effective).sum()


def class_balanced_focal(pred, target, *, loss, class_counts, beta, **_):
    """The wrapped loss is FocalLoss with sigmoid and its own gamma and alpha."""
    weights = np.append(class_weights(class_counts, beta), 1.0)
    focal = sigmoid_focal(pred, target, **loss.params())
    return focal * weights[np.clip(target, 0, len(class_counts))][:, None]


def distribution_focal(pred, target, **_):
    loss = []
    for row, y in zip(log_softmax(pred), target, strict=True):
        # The weights of the integers: a triangle of half-width 1 around y.
        shares = np.maximum(0, 1 - np.abs(np.arange(len(row)) - y))
        loss.append(-(shares * row).sum())
    return np.array(loss)


def nothing(pred, target, **_):
    """Nothing is constant: the full gradient of the reference is compared."""
    return {}


def logits(pred, target, **_):
    """A factor or a target is constant; it is computed from these logits."""
    return {"constant": pred}


WEIGHTS = {"class_weight": [0.5, 2.0, 3.0]}
WITH_BACKGROUND = {"class_weight": [0.5, 2.0, 3.0, 0.7]}
COUNTS = {"loss": "FocalLoss", "class_counts": [50, 20, 5]}

REFERENCES = {
    "BinaryCrossEntropyLoss": [
        ({}, binary_cross_entropy, nothing),
        (WEIGHTS, binary_cross_entropy, nothing),
    ],
    "CrossEntropyLoss": [
        ({}, softmax_cross_entropy, nothing),
        (WITH_BACKGROUND, softmax_cross_entropy, nothing),
        ({"use_sigmoid": True}, binary_cross_entropy, nothing),
        ({"use_sigmoid": True, **WEIGHTS}, mmdet_cross_entropy, nothing),
    ],
    "FocalLoss": [
        ({}, sigmoid_focal, nothing),
        ({"gamma": 0.5, "alpha": 0.6, **WEIGHTS}, sigmoid_focal, nothing),
        ({"use_sigmoid": False}, softmax_focal, nothing),
        ({"use_sigmoid": False, "gamma": 0.5, **WITH_BACKGROUND}, softmax_focal, nothing),
    ],
    "QualityFocalLoss": [
        ({}, quality_focal, nothing),
        ({"beta": 0.5}, quality_focal, nothing),
        ({"beta": 0.0, **WEIGHTS}, quality_focal, nothing),
    ],
    "VarifocalLoss": [
        ({}, varifocal, nothing),
        ({"alpha": 0.3, "gamma": 0.5, "iou_weighted": False, **WEIGHTS}, varifocal, nothing),
        ({"detach_focusing": True}, varifocal, logits),
    ],
    "MatchabilityAwareLoss": [
        ({}, matchability_aware, logits),
        ({"gamma": 0.5, **WEIGHTS}, matchability_aware, logits),
    ],
    "PolyFocalLoss": [
        ({}, poly_focal, nothing),
        ({"eps1": -1.0, "gamma": 0.5, "alpha": None, **WEIGHTS}, poly_focal, nothing),
    ],
    "AsymmetricLoss": [
        ({}, asymmetric, nothing),
        ({"gamma_pos": 0.5, "gamma_neg": 1.5, "clip": 0.2, **WEIGHTS}, asymmetric, nothing),
        ({"gamma_pos": 1.0, "gamma_neg": 0.0, "clip": 0.0}, asymmetric, nothing),
        ({"gamma_pos": 1.0, "detach_focusing": True}, asymmetric, logits),
        ({"gamma_pos": 1.0, "clip": 0.0, "detach_focusing": True}, asymmetric, logits),
    ],
    "IoUAwareBCELoss": [
        ({}, ia_bce, logits),
        ({"alpha": 0.6, "gamma": 1.0, "min_target": 0.1, **WEIGHTS}, ia_bce, logits),
    ],
    "SlideLoss": [({}, slide, nothing), ({"min_mean": 0.7, **WEIGHTS}, slide, nothing)],
    "PolyCrossEntropyLoss": [
        ({}, poly_cross_entropy, nothing),
        ({"eps1": 2.0, **WITH_BACKGROUND}, poly_cross_entropy, nothing),
    ],
    "LabelSmoothingLoss": [
        ({}, label_smoothing, nothing),
        ({"epsilon": 0.3, "use_sigmoid": True}, label_smoothing, nothing),
    ],
    "ClassBalanced": [
        (COUNTS, class_balanced_focal, nothing),
        ({**COUNTS, "beta": 1.0}, class_balanced_focal, nothing),
    ],
    # All classes occur as labels in the examples, so all are selected.
    "FederatedLoss": [({"num_sampled": 2}, binary_cross_entropy, nothing)],
    "DistributionFocalLoss": [({}, distribution_focal, nothing)],
}
