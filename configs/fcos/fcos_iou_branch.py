"""FCOS R50-FPN 1x on COCO with a branch for the IoU of the predicted box instead of centerness."""

_base_ = ["./fcos_base.py"]
model = dict(centerness_target="iou")
