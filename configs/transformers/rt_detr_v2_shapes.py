"""A small RT-DETR v2 on the built-in shapes, trained from scratch by transformers' Trainer.

python tools/compare_losses.py transformers/rt_detr_v2_shapes --component loss_iou \
    --losses GIoULoss CIoULoss

Needs the extra: pip install 'det-losses[transformers]'.
"""

_base_ = ["../_base_/datasets/shapes.py"]
trainer = dict(
    type="det_losses.adapters.transformers.trainer:TransformersTrainer",
    model="rt_detr_v2_small",
    image_size=96,
    epochs=10,
    batch_size=16,
    learning_rate=2e-3,
)
