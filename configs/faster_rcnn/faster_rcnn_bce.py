"""Faster R-CNN R50-FPN 1x on COCO with BinaryCrossEntropyLoss as loss_cls."""

_base_ = ["./faster_rcnn_base.py"]
model = dict(loss_cls="BinaryCrossEntropyLoss")
