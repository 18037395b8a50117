"""FCOS R50-FPN 1x on COCO with torchvision's losses: focal loss, GIoU and centerness.

Learning rate 0.01 for 16 images: mmdet fcos_r50-caffe_fpn_gn-head_1x_coco.

On 8 GPUs with 2 images each, and with another loss:

    torchrun --nproc-per-node 8 tools/train.py fcos/fcos_base --launcher pytorch \\
        --cfg-options train_dataloader.batch_size=2 model.loss_bbox=EIoULoss
"""

_base_ = [
    "../_base_/models/fcos_r50_fpn.py",
    "../_base_/datasets/coco.py",
    "../_base_/schedules/coco_1x.py",
    "../_base_/runtime.py",
]
optim_wrapper = dict(optimizer=dict(lr=0.01))
