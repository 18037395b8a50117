"""Faster R-CNN R50-FPN 1x on COCO with torchvision's losses: cross-entropy and Smooth L1.

On 8 GPUs with 2 images each, and with another loss:

    torchrun --nproc-per-node 8 tools/train.py faster_rcnn/faster_rcnn_base --launcher pytorch \\
        --cfg-options train_dataloader.batch_size=2 model.loss_bbox=EIoULoss
"""

_base_ = [
    "../_base_/models/faster_rcnn_r50_fpn.py",
    "../_base_/datasets/coco.py",
    "../_base_/schedules/coco_1x.py",
    "../_base_/runtime.py",
]
