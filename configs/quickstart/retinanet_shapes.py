"""A small RetinaNet on the built-in shapes, trained from scratch.

    make quickstart

AP, mean and standard deviation over seeds 0, 1 and 2: 32.0 ± 2.0 with GIoULoss, 30.9 ± 2.9 with
EIoULoss, 28.0 ± 1.2 with SmoothL1Loss; 59 minutes of CPU time for the nine runs on an AMD EPYC.
With 6 epochs instead of 10 it was 14.7 ± 1.6, 11.4 ± 1.9 and 13.0 ± 3.2.
"""

_base_ = [
    "../_base_/models/retinanet_small.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/small.py",
    "../_base_/runtime.py",
]
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_epochs=10, val_interval=2)
