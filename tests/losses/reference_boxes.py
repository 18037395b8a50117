"""Stateless box losses from the equations of their papers or of the authors' code.

Arrays of a whole batch in float64; no code is shared with the package. Quantities that are constant
in the gradient are arguments, so that finite differences can keep them fixed.
"""

import numpy as np


def sides(boxes):
    return boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]


def offsets(b, g):
    """Centre of ``b`` minus centre of ``g``."""
    return (b[:, 0] + b[:, 2] - g[:, 0] - g[:, 2]) / 2, (b[:, 1] + b[:, 3] - g[:, 1] - g[:, 3]) / 2


def hull(b, g):
    corners = np.minimum(b, g)[:, :2], np.maximum(b, g)[:, 2:]
    return tuple((corners[1] - corners[0]).T)


def iou(b, g):
    (w, h), (wg, hg) = sides(b), sides(g)
    iw = np.maximum(0, np.minimum(b[:, 2], g[:, 2]) - np.maximum(b[:, 0], g[:, 0]))
    ih = np.maximum(0, np.minimum(b[:, 3], g[:, 3]) - np.maximum(b[:, 1], g[:, 1]))
    return iw * ih / (w * h + wg * hg - iw * ih)


def smooth_l1(x, beta):
    return np.where(x < beta, x**2 / (2 * beta), x - beta / 2)


def siou(b, g, *, theta, **_):
    (w, h), (wg, hg), (cw, ch), (dx, dy) = sides(b), sides(g), hull(b, g), offsets(b, g)
    angle = 1 - 2 * np.sin(np.arcsin(np.abs(dy) / np.hypot(dx, dy)) - np.pi / 4) ** 2
    gamma = 2 - angle
    distance = sum(1 - np.exp(-gamma * rho) for rho in ((dx / cw) ** 2, (dy / ch) ** 2))
    shape = (1 - np.exp(-np.abs(w - wg) / np.maximum(w, wg))) ** theta
    shape += (1 - np.exp(-np.abs(h - hg) / np.maximum(h, hg))) ** theta
    return 1 - iou(b, g) + (distance + shape) / 2


def mpdiou(b, g, *, image_size, **_):
    diagonal2 = (image_size**2).sum(1)
    d1 = ((b[:, :2] - g[:, :2]) ** 2).sum(1)
    d2 = ((b[:, 2:] - g[:, 2:]) ** 2).sum(1)
    return 1 - (iou(b, g) - d1 / diagonal2 - d2 / diagonal2)


def shape_iou(b, g, *, scale, **_):
    (w, h), (wg, hg), (cw, ch), (dx, dy) = sides(b), sides(g), hull(b, g), offsets(b, g)
    ww = 2 * wg**scale / (wg**scale + hg**scale)
    hh = 2 * hg**scale / (wg**scale + hg**scale)
    distance = hh * dx**2 / (cw**2 + ch**2) + ww * dy**2 / (cw**2 + ch**2)
    omega = hh * np.abs(w - wg) / np.maximum(w, wg), ww * np.abs(h - hg) / np.maximum(h, hg)
    return 1 - iou(b, g) + distance + 0.5 * sum((1 - np.exp(-o)) ** 4 for o in omega)


def piou_p(b, g):
    wg, hg = sides(g)
    return (np.abs(b - g) / np.stack([wg, hg, wg, hg], 1)).mean(1)


def piou(b, g, **_):
    return 2 - iou(b, g) - np.exp(-(piou_p(b, g) ** 2))


def piou_v2(b, g, *, lambda_, **_):
    x = lambda_ * np.exp(-piou_p(b, g))
    return 3 * x * np.exp(-(x**2)) * piou(b, g)


def interp_iou(b, g, *, alpha, **_):
    alpha = np.broadcast_to(alpha, len(b))[:, None]
    return 1 - iou(b, g) + 1 - iou((1 - alpha) * b + alpha * g, g)


def dynamic_alpha(b, g, *, alpha_min, alpha_max, **_):
    return {"alpha": np.minimum(np.maximum(1 - iou(b, g), alpha_min), alpha_max)}


def dynamic_interp_iou(b, g, *, alpha=None, **bounds):
    known = dynamic_alpha(b, g, **bounds) if alpha is None else {"alpha": alpha}
    return interp_iou(b, g, **known)


def nwd(b, g, *, constant, **_):
    """The Wasserstein distance of two Gaussians, with matrices as in its definition."""
    distances = []
    for box, target in zip(b, g, strict=True):
        means = [(x[:2] + x[2:]) / 2 for x in (box, target)]
        roots = [np.diag(x[2:] - x[:2]) / 2 for x in (box, target)]
        squared = ((means[0] - means[1]) ** 2).sum() + np.linalg.norm(roots[0] - roots[1]) ** 2
        distances.append(np.sqrt(squared))
    return 1 - np.exp(-np.array(distances) / constant)


def bounded_iou(b, g, *, beta, **_):
    (w, h), (wg, hg), (dx, dy) = sides(b), sides(g), offsets(b, g)
    costs = [
        1 - np.maximum(0, (wg - 2 * np.abs(dx)) / (wg + 2 * np.abs(dx))),
        1 - np.maximum(0, (hg - 2 * np.abs(dy)) / (hg + 2 * np.abs(dy))),
        1 - np.minimum(w / wg, wg / w),
        1 - np.minimum(h / hg, hg / h),
    ]
    return sum(smooth_l1(cost, beta) for cost in costs)


def extended_iou(b, g, *, smooth_point, **_):
    """Sums and differences of rectangles from the corner of the hull, as in mmdetection."""
    origin = np.tile(np.minimum(b, g)[:, :2], 2)
    b, g = b - origin, g - origin
    x1, y1 = np.maximum(b, g)[:, :2].T
    x2, y2 = np.minimum(b, g)[:, 2:].T
    low_x, low_y = np.minimum(x1, x2), np.minimum(y1, y2)
    high_x, high_y = np.maximum(x1, x2), np.maximum(y1, y2)
    intersection = x2 * y2 + low_x * low_y - x1 * high_y - high_x * y1
    union = np.prod(sides(b), axis=0) + np.prod(sides(g), axis=0) - intersection
    return smooth_l1(1 - intersection / union, smooth_point)


def balanced_l1(x, y, *, alpha, gamma, beta, **_):
    """The integral of the paper's gradient, alpha ln(b z + 1) up to 1 and gamma beyond."""
    z = np.abs(x - y) / beta
    b = np.exp(gamma / alpha) - 1
    nodes, weights = np.polynomial.legendre.leggauss(60)
    upper = np.minimum(z, 1)[..., None]
    slope = alpha * np.log(b * (nodes + 1) / 2 * upper + 1)
    inner = (slope * weights).sum(-1) / 2 * upper[..., 0]
    return beta * (inner + gamma * np.maximum(z - 1, 0))


def balanced_l1_as_released(x, y, *, alpha, gamma, beta, **_):
    """The formula of OceanPang/Libra_R-CNN, which divides by beta in the logarithm only."""
    d, b = np.abs(x - y), np.exp(gamma / alpha) - 1
    near = alpha / b * (b * d + 1) * np.log(b * d / beta + 1) - alpha * d
    return np.where(d < beta, near, gamma * d + gamma / b - alpha * beta)


REFERENCES = {
    "SIoULoss": [({}, siou), ({"theta": 2.5}, siou)],
    "MPDIoULoss": [({}, mpdiou)],
    "ShapeIoULoss": [({}, shape_iou), ({"scale": 1.5}, shape_iou)],
    "PIoULoss": [({}, piou)],
    "PIoUv2Loss": [({}, piou_v2), ({"lambda_": 0.8}, piou_v2)],
    "InterpIoULoss": [({}, interp_iou), ({"alpha": 0.5}, interp_iou)],
    "DynamicInterpIoULoss": [
        ({}, dynamic_interp_iou, dynamic_alpha),
        ({"alpha_min": 0.1, "alpha_max": 0.7}, dynamic_interp_iou, dynamic_alpha),
    ],
    "NWDLoss": [({}, nwd), ({"constant": 40.0}, nwd)],
    "BoundedIoULoss": [({}, bounded_iou), ({"beta": 0.6}, bounded_iou)],
    "ExtendedIoULoss": [({}, extended_iou), ({"smooth_point": 0.5}, extended_iou)],
    "BalancedL1Loss": [
        ({}, balanced_l1),
        ({"alpha": 0.7, "gamma": 0.9, "beta": 0.3}, balanced_l1),
        ({"beta": 0.11, "as_released": True}, balanced_l1_as_released),
    ],
}


def nothing(*_, **__):
    return {}


# Entries without constants: the full gradient of the equation is compared.
REFERENCES = {
    name: [entry if len(entry) == 3 else (*entry, nothing) for entry in entries]
    for name, entries in REFERENCES.items()
}
