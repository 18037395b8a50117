"""FCOS R50-FPN 1x on COCO with GFL's losses: quality focal, distribution focal and GIoU.

GFL assigns targets by ATSS; this config uses FCOS's center sampling.
"""

_base_ = ["./fcos_base.py"]
model = dict(
    loss_cls="QualityFocalLoss",
    loss_bbox="GIoULoss",
    loss_dfl="DistributionFocalLoss",
    box_weight="score",
)
