"""RetinaNet on EfficientNet-Lite0 at 256 px, for 150 to 1,000 images of your own on a CPU.

    python tools/train.py small/retinanet_lite0 --train-ann FILE --train-images DIR \\
        --val-ann FILE --val-images DIR

AP 14.4 (AP50 34.5) after 134 s (one run), with 285 COCO images of nine classes of animals and
vehicles for training and 67 for validation, one thread of an AMD EPYC. docs/recipe.md has the
recipes that were tried.
"""

_base_ = [
    "../_base_/models/retinanet_lite0_fpn.py",
    "../_base_/datasets/coco_small.py",
    "../_base_/schedules/small.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(interval=None))  # in the middle and at the end
# The pretrained body has a tenth of the learning rate of the untrained pyramid and heads.
optim_wrapper = dict(
    optimizer=dict(lr=2e-3, fused=True),
    paramwise_cfg=dict(custom_keys={"detector.backbone.body": dict(lr_mult=0.1)}),
)
