"""torchvision's Faster R-CNN R50-FPN: 800 px, cross-entropy and Smooth L1 in both stages."""

model = dict(
    type="FasterRCNN",
    num_classes=None,  # from the data
    backbone=dict(type="ResNetFPN", name="resnet50", weights="IMAGENET1K_V1"),
    loss_rpn_cls=dict(type="BinaryCrossEntropyLoss"),
    loss_rpn_bbox=dict(type="SmoothL1Loss"),
    loss_cls=dict(type="CrossEntropyLoss"),
    loss_bbox=dict(type="SmoothL1Loss"),
)
