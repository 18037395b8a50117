"""Shares of boxes with an anchor if images are smaller than those that anchors were made for.

    python benchmarks/anchor_sizes.py TRAIN.json IMAGES --size 160

For each config of small/: with its own sizes, with sizes that follow the image size, and with the
best sizes that are found for this image size. Also for made boxes of two classes: 900 "cells" of
about 25 px and 100 "platelets" of about 8 px at 160 px. Shares are of all boxes / mean of classes.
"""

import argparse
from dataclasses import replace

import numpy as np

from det_losses.data.box_table import BoxTable
from det_losses.data.coco import CocoDataset
from det_losses.engine.config import read_config
from det_losses.engine.coverage import Coverage, best_targets, measure
from det_losses.report.markdown import table

CONFIGS = {f"small/{name}_lite0": 256 for name in ("retinanet", "faster_rcnn", "fcos")}


class Cells:
    """100 images of 640 x 480 with nine cells of 80 to 125 px and a platelet of 26 to 40 px."""

    def __init__(self) -> None:
        rng, names = np.random.default_rng(0), ("cell", "platelet")
        self.metainfo = {"classes": names, "category_ids": (1, 2)}
        sides = np.tile(np.array([[100.0]] * 9 + [[32.0]]), (100, 2))
        sides *= rng.uniform(0.8, 1.25, sides.shape)
        low = rng.uniform(0, 1, sides.shape) * ([640, 480] - sides)
        self.table = BoxTable(
            [f"{row}.jpg" for row in range(100)],
            np.tile([640.0, 480.0], (100, 1)),
            np.repeat(np.arange(100), 10),
            np.hstack([low, low + sides]),
            np.tile([0] * 9 + [1], 100),
            names,
        )

    def box_table(self, transformed: bool = False) -> BoxTable:
        """Return the boxes."""
        return self.table


def shares(coverage: Coverage) -> str:
    """Return the share of all boxes and the mean share of the classes."""
    classes = np.mean([share for _, _, share in coverage.by_class()])
    return f"{100 * coverage.covered.mean():.0f} / {100 * classes:.0f}%"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ann_file")
    parser.add_argument("image_dir")
    parser.add_argument("--size", type=int, default=160)
    args = parser.parse_args()
    data = {args.ann_file: CocoDataset(args.ann_file, args.image_dir), "cells": Cells()}
    rows = []
    for config, made_for in CONFIGS.items():
        for name, dataset in data.items():
            model = read_config(config).model
            model.update(min_size=args.size, max_size=args.size)
            own = measure(model, dataset)
            following = own.targets.scaled(args.size / made_for)
            others = (following, best_targets(own, 1.0)[0])
            cells = [shares(each) for each in (own, *(replace(own, targets=t) for t in others))]
            rows.append([config, name, *cells])
    print(table(["config", "data", "own sizes", "sizes that follow", "best sizes found"], rows))


if __name__ == "__main__":
    main()
