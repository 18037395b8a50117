"""Faster R-CNN R50-FPN 1x on COCO with IoULoss as loss_bbox."""

_base_ = ["./faster_rcnn_base.py"]
model = dict(loss_bbox="IoULoss")
