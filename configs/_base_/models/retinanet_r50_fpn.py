"""torchvision's RetinaNet R50-FPN: 800 px, levels 3 to 7, focal loss and L1."""

model = dict(
    type="RetinaNet",
    num_classes=None,  # from the data
    backbone=dict(
        type="ResNetFPN",
        name="resnet50",
        weights="IMAGENET1K_V1",
        returned_layers=(2, 3, 4),
        extra_levels="p6p7",
    ),
    loss_cls=dict(type="FocalLoss"),
    loss_bbox=dict(type="L1Loss"),
)
