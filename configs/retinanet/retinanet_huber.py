"""RetinaNet R50-FPN 1x on COCO with HuberLoss as loss_bbox."""

_base_ = ["./retinanet_base.py"]
model = dict(loss_bbox="HuberLoss")
