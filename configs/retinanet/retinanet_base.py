"""RetinaNet R50-FPN 1x on COCO: what the configs beside this one share.

Learning rate 0.01 for 16 images: mmdet retinanet_r50_fpn_1x_coco and 2101.08158's baseline.
"""

_base_ = [
    "../_base_/models/retinanet_r50_fpn.py",
    "../_base_/datasets/coco.py",
    "../_base_/schedules/coco_1x.py",
    "../_base_/runtime.py",
    "../_base_/loss_weights.py",
]
optim_wrapper = dict(optimizer=dict(lr=0.01))
