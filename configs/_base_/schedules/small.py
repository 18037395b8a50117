"""For small data and small machines: AdamW, cosine schedule to zero, one evaluation at the end.

The number of epochs follows from `steps` and the number of images; `max_epochs` takes precedence.
"""

train_cfg = dict(by_epoch=True, steps=800, val_interval=None)
val_cfg = dict()
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True),
]
