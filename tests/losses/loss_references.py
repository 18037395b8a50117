"""Reference losses from the papers' equations, for one box or element in plain floats.

No code is shared with the package. Quantities that are constant in the gradient are arguments, so
that finite differences can keep them fixed.
"""

import math

import numpy as np


def geometry(b, g):
    """Return the quantities of the papers for boxes that are not degenerate."""
    w, h, wg, hg = b[2] - b[0], b[3] - b[1], g[2] - g[0], g[3] - g[1]
    iw = max(0.0, min(b[2], g[2]) - max(b[0], g[0]))
    ih = max(0.0, min(b[3], g[3]) - max(b[1], g[1]))
    union = w * h + wg * hg - iw * ih
    cw, ch = max(b[2], g[2]) - min(b[0], g[0]), max(b[3], g[3]) - min(b[1], g[1])
    rho2 = ((b[0] + b[2]) / 2 - (g[0] + g[2]) / 2) ** 2
    rho2 += ((b[1] + b[3]) / 2 - (g[1] + g[3]) / 2) ** 2
    return dict(w=w, h=h, wg=wg, hg=hg, iou=iw * ih / union, union=union, cw=cw, ch=ch, rho2=rho2)


def iou_log(b, g):
    return -math.log(max(geometry(b, g)["iou"], 1e-6))


def iou_linear(b, g):
    return 1 - geometry(b, g)["iou"]


def iou_square(b, g):
    return 1 - geometry(b, g)["iou"] ** 2


def giou(b, g):
    q = geometry(b, g)
    hull = q["cw"] * q["ch"]
    return 1 - (q["iou"] - (hull - q["union"]) / hull)


def diou(b, g):
    q = geometry(b, g)
    return 1 - q["iou"] + q["rho2"] / (q["cw"] ** 2 + q["ch"] ** 2)


def ciou_v(b, g):
    q = geometry(b, g)
    return 4 / math.pi**2 * (math.atan(q["wg"] / q["hg"]) - math.atan(q["w"] / q["h"])) ** 2


def ciou_alpha(b, g, gate=0.0):
    iou, v = geometry(b, g)["iou"], ciou_v(b, g)
    return v / (1 - iou + v) if iou >= gate else 0.0


def ciou(b, g, alpha=None):
    alpha = ciou_alpha(b, g) if alpha is None else alpha
    return diou(b, g) + alpha * ciou_v(b, g)


def eiou(b, g):
    q = geometry(b, g)
    sizes = (q["w"] - q["wg"]) ** 2 / q["cw"] ** 2 + (q["h"] - q["hg"]) ** 2 / q["ch"] ** 2
    return diou(b, g) + sizes


def smooth_l1(x, y, beta=1.0):
    d = abs(x - y)
    return 0.5 * d * d / beta if d < beta else d - 0.5 * beta


def huber(x, y, delta=1.0):
    d = abs(x - y)
    return 0.5 * d * d if d <= delta else delta * (d - 0.5 * delta)


def focal_l1(x, y, beta=0.8):
    d, a = abs(x - y), math.e * beta
    if d == 0:
        return 0.0
    if d <= 1:
        return -a * d * d * (2 * math.log(beta * d) - 1) / 4
    return -a * math.log(beta) * d + (2 * a * math.log(beta) + a) / 4


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def sigmoid_focal(x, y, gamma=2.0, alpha=0.25):
    pt = sigmoid(x) if y == 1 else 1 - sigmoid(x)
    return -(alpha if y == 1 else 1 - alpha) * (1 - pt) ** gamma * math.log(pt)


def per_box(function, pred, target, *constants):
    rows = zip(pred.tolist(), target.tolist(), *constants, strict=True)
    return np.array([function(*row) for row in rows])


def per_element(function, pred, target, **parameters):
    return np.vectorize(lambda x, y: function(x, y, **parameters), otypes=[float])(pred, target)
