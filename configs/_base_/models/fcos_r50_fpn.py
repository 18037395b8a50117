"""torchvision's FCOS R50-FPN: 800 px, levels 3 to 7, focal loss, GIoU and centre-ness.

What the centre-ness branch learns by is left to FCOS: it has none where `loss_cls` scores by the
quality itself.
"""

model = dict(
    type="FCOS",
    num_classes=None,  # from the data
    backbone=dict(
        type="ResNetFPN",
        name="resnet50",
        weights="IMAGENET1K_V1",
        returned_layers=(2, 3, 4),
        extra_levels="p6p7",
    ),
    score_thresh=0.05,  # torchvision: 0.2, which cuts off more of a score without centre-ness
    loss_cls=dict(type="FocalLoss"),
    loss_bbox=dict(type="GIoULoss"),
)
