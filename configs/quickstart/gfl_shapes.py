"""A small FCOS with GFL's losses on the built-in shapes, trained from scratch.

python tools/train.py quickstart/gfl_shapes
"""

_base_ = ["./fcos_shapes.py"]
model = dict(
    loss_cls="QualityFocalLoss",
    loss_bbox="GIoULoss",
    loss_dfl="DistributionFocalLoss",
    box_weight="score",
)
