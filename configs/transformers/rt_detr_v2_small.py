"""A small RT-DETR v2 on the built-in shapes, trained from scratch by transformers' Trainer.

    pip install 'det-losses[transformers]'
    det-losses compare transformers/rt_detr_v2_small --component loss_iou \
        --losses GIoULoss CIoULoss

docs/transformers.md has a measured comparison.
"""

_base_ = ["../_base_/datasets/shapes.py"]
trainer = dict(
    type="det_losses.adapters.transformers.comparison:TransformersTrainer",
    model="rt_detr_v2_small",
    image_size=96,
    epochs=10,
    batch_size=16,
    learning_rate=2e-3,
)
