"""Faster R-CNN on EfficientNet-Lite0 at 320 px, for COCO subsets on one small machine.

    python tools/train.py small/faster_rcnn_lite0 --train-ann FILE --train-images DIR \\
        --val-ann FILE --val-images DIR

Measured by tools/compare_losses.py with model.min_size=256 model.max_size=256
train_cfg.max_epochs=5 and one seed, on 800 COCO images with persons and 200 for validation, one
thread of a busy Intel Xeon, 12 to 15 minutes per run:
AP 0.147 with SmoothL1Loss, 0.145 with EIoULoss, 0.125 with GIoULoss.
These are single runs and do not give a ranking.
"""

_base_ = [
    "../_base_/models/faster_rcnn_lite0_fpn.py",
    "../_base_/datasets/coco.py",
    "../_base_/schedules/small.py",
    "../_base_/runtime.py",
]
train_dataloader = dict(batch_size=8, num_workers=1)
val_dataloader = dict(num_workers=1)
# The pretrained body has a tenth of the learning rate of the untrained pyramid and heads.
optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(custom_keys={"detector.backbone.body": dict(lr_mult=0.1)}),
)
