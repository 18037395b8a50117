"""Made boxes of two classes, and detectors whose anchors fit one of them."""

import numpy as np
from mmengine.config import Config

from det_losses.data.box_table import BoxTable

NAMES = ("cell", "platelet")


class Boxes:
    """A dataset of 100 images of 640 x 480: each has 9 cells of 100 px and a platelet of 40 px."""

    def __init__(self, shrunk=1.0, images=100):
        self.metainfo = {"classes": NAMES, "category_ids": (1, 2)}
        rng = np.random.default_rng(0)
        sides = np.tile(np.array([[100.0]] * 9 + [[40.0]]), (images, 2)) * shrunk
        sides *= rng.uniform(0.8, 1.25, sides.shape)
        low = rng.uniform(0, 1, sides.shape) * ([640, 480] - sides)
        self.table = BoxTable(
            [f"{i}.jpg" for i in range(images)],
            np.tile([640.0, 480.0], (images, 1)),
            np.repeat(np.arange(images), 10),
            np.hstack([low, low + sides]),
            np.tile([0] * 9 + [1], images),
            NAMES,
        )

    def box_table(self, transformed=False):
        return self.table


def tiny(kind, **changes):
    """A detector of strides 8 to 32 with sizes for images of 256 px."""
    model = dict(
        type=kind,
        backbone=dict(
            type="SmallResNetFPN", widths=(4, 8, 8, 8, 8), out_channels=8, extra_levels=None
        ),
        min_size=256,
        max_size=256,
    )
    if kind == "FCOS":
        model |= dict(anchor_sizes=[2, 4, 8], center_sampling_radius=1.0)
    else:
        model |= dict(anchors=dict(sizes=[[60], [90], [120]], aspect_ratios=[0.5, 1.0, 2.0]))
    return Config(dict(model={**model, **changes}))
