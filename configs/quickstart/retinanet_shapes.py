"""A small RetinaNet on the built-in shapes, trained from scratch.

make quickstart
"""

_base_ = [
    "../_base_/models/retinanet_small.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/small.py",
    "../_base_/runtime.py",
]
optim_wrapper = dict(optimizer=dict(lr=4e-3, fused=True))
train_cfg = dict(max_epochs=9, val_interval=9)
default_hooks = dict(checkpoint=dict(interval=5))
