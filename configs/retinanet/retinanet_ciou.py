"""RetinaNet R50-FPN 1x on COCO with CIoULoss as loss_bbox."""

_base_ = ["./retinanet_base.py"]
model = dict(loss_bbox="CIoULoss")
