"""A small FCOS as GFL on the built-in shapes, from scratch: quality and distribution focal loss.

    python tools/train.py quickstart/gfl_shapes

Time and result: not measured yet.
"""

_base_ = [
    "../_base_/models/fcos_small.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/small.py",
    "../_base_/runtime.py",
    "../_base_/gfl_loss_weights.py",
]
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_epochs=10, val_interval=2)
model = dict(
    loss_cls=dict(_delete_=True, type="QualityFocalLoss", loss_weight=1.0),
    loss_bbox=dict(_delete_=True, type="GIoULoss", loss_weight=2.0),
    loss_dfl=dict(type="DistributionFocalLoss", loss_weight=0.25),
    box_weight="score",
)
