"""COCO 1x: 12 epochs, SGD with lr 0.02 for 16 images per step, divided by 10 after epochs 8 and 11.

The learning rate is scaled with the number of images per step (--launcher, batch_size).
"""

train_cfg = dict(by_epoch=True, max_epochs=12, val_interval=1)
val_cfg = dict()
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, milestones=[8, 11], gamma=0.1),
]
auto_scale_lr = dict(enable=True, base_batch_size=16)
