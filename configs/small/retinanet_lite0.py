"""RetinaNet on EfficientNet-Lite0 at 320 px, for COCO subsets on one small machine.

    python tools/train.py small/retinanet_lite0 --train-ann FILE --train-images DIR \\
        --val-ann FILE --val-images DIR

Measured by tools/compare_losses.py with model.min_size=256 model.max_size=256
train_cfg.max_epochs=5 and one seed, on 800 COCO images with persons and 200 to evaluate on, one
thread of a busy Intel Xeon, 10 to 12 minutes a run:
AP 0.110 with GIoULoss, 0.109 with SmoothL1Loss, 0.094 with EIoULoss.
These are single runs: no ranking follows from them.
"""

_base_ = [
    "../_base_/models/retinanet_lite0_fpn.py",
    "../_base_/datasets/coco.py",
    "../_base_/schedules/small.py",
    "../_base_/runtime.py",
]
train_dataloader = dict(batch_size=8, num_workers=1)
val_dataloader = dict(num_workers=1)
# The pretrained body learns at a tenth of the rate of pyramid and heads, which start from nothing.
optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(custom_keys={"detector.backbone.body": dict(lr_mult=0.1)}),
)
