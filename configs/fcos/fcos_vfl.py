"""FCOS R50-FPN 1x on COCO with VarifocalLoss as loss_cls, which removes the centerness branch.

As in VFNet, a positive is weighted in `loss_bbox` by the IoU of its predicted box. VFNet's box
refinement is not implemented.
"""

_base_ = ["./fcos_base.py"]
model = dict(loss_cls="VarifocalLoss", box_weight="iou")
