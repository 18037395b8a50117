"""A small FCOS on the built-in shapes, from scratch.

    python tools/train.py quickstart/fcos_shapes

Time and result: not measured yet.
"""

_base_ = [
    "../_base_/models/fcos_small.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/small.py",
    "../_base_/runtime.py",
    "../_base_/loss_weights.py",
]
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_epochs=10, val_interval=2)
