"""Faster R-CNN R50-FPN 1x on COCO: what the configs beside this one share."""

_base_ = [
    "../_base_/models/faster_rcnn_r50_fpn.py",
    "../_base_/datasets/coco.py",
    "../_base_/schedules/coco_1x.py",
    "../_base_/runtime.py",
    "../_base_/loss_weights.py",
]
