"""RetinaNet R50-FPN 1x on COCO with CrossEntropyLoss as loss_cls."""

_base_ = ["./retinanet_base.py"]
model = dict(loss_cls="CrossEntropyLoss")
