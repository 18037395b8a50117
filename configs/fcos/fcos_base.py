"""FCOS R50-FPN 1x on COCO: what the configs beside this one share.

Learning rate 0.01 for 16 images: mmdet fcos_r50-caffe_fpn_gn-head_1x_coco.
"""

_base_ = [
    "../_base_/models/fcos_r50_fpn.py",
    "../_base_/datasets/coco.py",
    "../_base_/schedules/coco_1x.py",
    "../_base_/runtime.py",
    "../_base_/loss_weights.py",
]
optim_wrapper = dict(optimizer=dict(lr=0.01))
