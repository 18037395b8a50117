"""FCOS on EfficientNet-Lite0 at 256 px: each level is assigned boxes half as large as at 800 px."""

model = dict(
    type="FCOS",
    num_classes=None,  # from the data
    min_size=256,
    max_size=256,
    backbone=dict(
        type="EfficientNetLite0FPN",
        frozen_stages=4,  # all but the last
        feature_cache_mb=500,  # their features, for images that come again
        out_channels=64,
        extra_levels="p6p7",
        fpn_norm="GN",
    ),
    num_convs=1,
    anchor_sizes=(4, 8, 16, 32, 64),
    center_sampling_radius=3.0,  # in units of these sizes: 1.5 strides, as in the paper
    score_thresh=0.05,  # torchvision: 0.2, which removes more detections without centerness
    loss_cls=dict(type="FocalLoss"),
    loss_bbox=dict(type="GIoULoss"),
)
