"""FCOS R50-FPN 1x on COCO with GFL's losses: quality and distribution focal loss, GIoU weight 2.

The weights: 2006.04388; mmdet gfl_r50_fpn. GFL assigns places to boxes by ATSS, this by FCOS's
centre sampling.

    torchrun --nproc-per-node 8 tools/train.py fcos/gfl \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = [
    "../_base_/models/fcos_r50_fpn.py",
    "../_base_/datasets/coco.py",
    "../_base_/schedules/coco_1x.py",
    "../_base_/runtime.py",
    "../_base_/gfl_loss_weights.py",
]
optim_wrapper = dict(optimizer=dict(lr=0.01))
model = dict(
    loss_cls=dict(_delete_=True, type="QualityFocalLoss", loss_weight=1.0),
    loss_bbox=dict(_delete_=True, type="GIoULoss", loss_weight=2.0),
    loss_dfl=dict(type="DistributionFocalLoss", loss_weight=0.25),
    box_weight="score",
)
