"""torchvision's FCOS R50-FPN: 800 px, levels 3 to 7, focal loss, GIoU and centerness.

`loss_centerness` is not set here, because FCOS has no centerness branch if `loss_cls` scores by the
quality.
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
    score_thresh=0.05,  # torchvision: 0.2, which removes more detections without centerness
    loss_cls=dict(type="FocalLoss"),
    loss_bbox=dict(type="GIoULoss"),
)
