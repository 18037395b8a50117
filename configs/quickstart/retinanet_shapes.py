"""A small RetinaNet on the built-in shapes, from scratch.

    make quickstart

With 6 epochs and 500 evaluated images: not measured yet.
"""

_base_ = [
    "../_base_/models/retinanet_small.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/small.py",
    "../_base_/runtime.py",
    "../_base_/loss_weights.py",
]
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_epochs=6, val_interval=2)
