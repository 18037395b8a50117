"""From files to batches: COCO datasets, the built-in shapes, transforms, collate and subsets."""

from det_losses.data.coco import CocoDataset
from det_losses.data.coco_json import load_coco_json
from det_losses.data.collate import detection_collate
from det_losses.data.shapes import ShapesDataset, make_shapes
from det_losses.data.subset import make_subset

__all__ = [
    "CocoDataset",
    "ShapesDataset",
    "detection_collate",
    "load_coco_json",
    "make_shapes",
    "make_subset",
]
