"""RetinaNet R50-FPN 1x on COCO with torchvision's losses: focal loss and L1.

Learning rate 0.01 for 16 images: mmdet retinanet_r50_fpn_1x_coco and the baseline of 2101.08158.

On 8 GPUs with 2 images each, and with another loss:

    torchrun --nproc-per-node 8 tools/train.py retinanet/retinanet_base --launcher pytorch \\
        --cfg-options train_dataloader.batch_size=2 model.loss_bbox=EIoULoss
"""

_base_ = [
    "../_base_/models/retinanet_r50_fpn.py",
    "../_base_/datasets/coco.py",
    "../_base_/schedules/coco_1x.py",
    "../_base_/runtime.py",
]
optim_wrapper = dict(optimizer=dict(lr=0.01))
