"""Stateful losses from their papers' equations, in numpy, for a whole batch.

``state`` contains the buffers before a call in training mode, without sample weights. Rows with a
negative label are not examples, and their loss is 0.
"""

import numpy as np


def _iou(pred, target):
    left_top = np.maximum(pred[:, :2], target[:, :2])
    right_bottom = np.minimum(pred[:, 2:], target[:, 2:])
    overlap = np.clip(right_bottom - left_top, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (pred, target)]
    return overlap / (areas[0] + areas[1] - overlap)


def _hull2(pred, target):
    size = np.maximum(pred[:, 2:], target[:, 2:]) - np.minimum(pred[:, :2], target[:, :2])
    return (size**2).sum(-1)


def _running(name, state, batch, momentum, start=None):
    """The mean after a batch; without a start, the first batches have equal weight."""
    before = state[f"{name}.mean"]
    weight = momentum if start else max(1 / (state[f"{name}.batches"] + 1), momentum)
    return (1 - weight) * before + weight * batch


def _beta(pred, target, momentum, start, state):
    loss = 1 - _iou(pred, target)
    return loss / _running("iou_loss", state, loss.mean(), momentum, start)


def wiou_v1(pred, target, *, c2=None, **_):
    gap = (pred[:, :2] + pred[:, 2:] - target[:, :2] - target[:, 2:]) / 2
    c2 = _hull2(pred, target) if c2 is None else c2
    return np.exp((gap**2).sum(-1) / c2) * (1 - _iou(pred, target))


def wiou_v1_constants(pred, target, **_):
    return {"c2": _hull2(pred, target)}


def wiou_v2(pred, target, *, gamma, momentum, start, state, c2=None, beta=None, **_):
    beta = _beta(pred, target, momentum, start, state) if beta is None else beta
    return beta**gamma * wiou_v1(pred, target, c2=c2)


def wiou_v3(pred, target, *, alpha, delta, momentum, start, state, c2=None, beta=None, **_):
    beta = _beta(pred, target, momentum, start, state) if beta is None else beta
    return beta / (delta * alpha ** (beta - delta)) * wiou_v1(pred, target, c2=c2)


def wiou_constants(pred, target, *, momentum, start, state, **_):
    return {"c2": _hull2(pred, target), "beta": _beta(pred, target, momentum, start, state)}


def dynamic_smooth_l1(pred, target, *, state, **_):
    """Smooth L1 with the beta from the previous batches."""
    d, beta = abs(pred - target), state["current_beta"]
    return np.where(d < beta, d**2 / (2 * beta), d - beta / 2)


def nothing(pred, target, **_):
    """Constants in the gradient do not depend on the prediction."""
    return {}


def _harmonized(loss, norm, valid, bins, momentum, state, beta):
    if beta is None:
        found, _ = np.histogram(norm[valid], bins=bins, range=(0, 1))
        counts = _running("counts", state, found, 1 - momentum) if momentum else found
        place = np.minimum((norm * bins).astype(int), bins - 1)
        beta = valid.sum() / np.maximum(counts[place] * bins, 1e-9)  # N / GD, GD = R M
    return np.where(valid, beta * loss, 0), beta


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _one_hot(labels, classes):
    return (labels[:, None] == np.arange(classes)).astype(float)


def _ghmc(pred, target, *, bins, momentum, state=None, beta=None, **_):
    p = _sigmoid(pred)
    y = target if target.shape == pred.shape else _one_hot(target, pred.shape[1])
    loss = -y * np.log(p) - (1 - y) * np.log(1 - p)
    valid = np.broadcast_to(target.reshape(len(pred), -1) >= 0, pred.shape)
    return _harmonized(loss, abs(p - y), valid, bins, momentum, state, beta)


def _ghmr(pred, target, *, mu, bins, momentum, state=None, beta=None, **_):
    d = pred - target
    root = np.sqrt(d**2 + mu**2)
    everywhere = np.ones(d.shape, bool)
    return _harmonized(root - mu, abs(d) / root, everywhere, bins, momentum, state, beta)


def ghmc(pred, target, **kwargs):
    return _ghmc(pred, target, **kwargs)[0]


def ghmr(pred, target, **kwargs):
    return _ghmr(pred, target, **kwargs)[0]


def ghmc_constants(pred, target, **kwargs):
    return {"beta": _ghmc(pred, target, **kwargs)[1]}


def ghmr_constants(pred, target, **kwargs):
    return {"beta": _ghmr(pred, target, **kwargs)[1]}


def seesaw_factors(pred, target, *, p, q, eps, num_classes, state, **_):
    """M_ij C_ij of each row's label i and each channel j; 1 for the background."""
    batch = [(target == c).sum() for c in range(num_classes)]
    counts = np.maximum(state["class_counts"] + batch, 1)
    factors = np.ones_like(pred)
    for row, i in enumerate(target):
        if not 0 <= i < num_classes:
            continue
        sigma = np.exp(pred[row, :num_classes])
        sigma /= sigma.sum()
        for j in range(num_classes):
            if j == i:
                continue
            if counts[i] > counts[j]:
                factors[row, j] *= (counts[j] / counts[i]) ** p
            ratio = sigma[j] / max(sigma[i], eps)
            if ratio > 1:
                factors[row, j] *= ratio**q
    return factors


def seesaw(pred, target, *, factors=None, **kwargs):
    factors = seesaw_factors(pred, target, **kwargs) if factors is None else factors
    rows = np.arange(len(pred))
    loss = -np.log(np.exp(pred[rows, target]) / (factors * np.exp(pred)).sum(-1))
    return np.where(target >= 0, loss, 0)


def seesaw_constants(pred, target, **kwargs):
    return {"factors": seesaw_factors(pred, target, **kwargs)}


def eqlv2_weights(mu, alpha, gamma, state):
    """q and r of each class; 1 before there is a gradient."""
    up, down = state["positive_gradient"], state["negative_gradient"]
    f = np.ones_like(up)
    known = down > 0
    f[known] = _sigmoid(gamma * (up[known] / down[known] - mu))
    return 1 + alpha * (1 - f), f


def eqlv2(pred, target, *, num_classes, mu, alpha, gamma, state, **_):
    q, r = eqlv2_weights(mu, alpha, gamma, state)
    p, y = _sigmoid(pred), _one_hot(target, num_classes)
    loss = -q * y * np.log(p) - r * (1 - y) * np.log(1 - p)
    return np.where(target[:, None] >= 0, loss, 0)


def equalized_focal(pred, target, *, gamma, alpha, scale, state, **_):
    is_label = _one_hot(target, pred.shape[1])
    positive, negative = state["positive_gradient"], state["negative_gradient"]
    g = np.ones_like(positive, dtype=float)
    np.divide(positive, negative, out=g, where=negative > 0)
    gamma_c = gamma + scale * (1 - np.minimum(g, 1))
    p = _sigmoid(pred)
    p_t = np.where(is_label, p, 1 - p)
    a = 1.0 if alpha is None else np.where(is_label, alpha, 1 - alpha)
    loss = -a * gamma_c / gamma * (1 - p_t) ** gamma_c * np.log(p_t)
    return loss * (target >= 0)[:, None]


REFERENCES = {
    "WIoUv1Loss": [({}, wiou_v1, wiou_v1_constants)],
    "WIoUv2Loss": [
        ({}, wiou_v2, wiou_constants),
        ({"gamma": 1.5, "momentum": 0.6, "start": None}, wiou_v2, wiou_constants),
        ({"momentum": 0.6, "start": 0.5}, wiou_v2, wiou_constants),
    ],
    "WIoUv3Loss": [
        ({}, wiou_v3, wiou_constants),
        ({"alpha": 1.4, "delta": 5.0, "momentum": 0.6, "start": None}, wiou_v3, wiou_constants),
    ],
    "DynamicSmoothL1Loss": [
        ({"beta": 0.7}, dynamic_smooth_l1, nothing),
        ({"k": 3, "interval": 2}, dynamic_smooth_l1, nothing),
    ],
    "GHMRLoss": [
        ({}, ghmr, ghmr_constants),
        ({"mu": 0.5, "bins": 4, "momentum": 0.0}, ghmr, ghmr_constants),
    ],
    "GHMCLoss": [
        ({}, ghmc, ghmc_constants),
        ({"bins": 4, "momentum": 0.0}, ghmc, ghmc_constants),
    ],
    "SeesawLoss": [
        ({}, seesaw, seesaw_constants),
        ({"p": 1.2, "q": 0.7, "eps": 0.2}, seesaw, seesaw_constants),
    ],
    "EQLv2Loss": [
        ({}, eqlv2, nothing),
        ({"mu": 0.3, "alpha": 1.5, "gamma": 5.0}, eqlv2, nothing),
    ],
    "EqualizedFocalLoss": [
        ({}, equalized_focal, nothing),
        ({"gamma": 1.5, "alpha": None, "scale": 4.0}, equalized_focal, nothing),
    ],
}
