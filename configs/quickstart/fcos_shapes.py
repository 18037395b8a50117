"""A small FCOS on the built-in shapes, trained from scratch.

python tools/train.py quickstart/fcos_shapes
"""

_base_ = [
    "../_base_/models/fcos_small.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/small.py",
    "../_base_/runtime.py",
]
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_epochs=10, val_interval=2)
