"""RetinaNet on EfficientNet-Lite0 at 256 px: anchors 0.4 times as large as at 800 px."""

model = dict(
    type="RetinaNet",
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
    head_norm="GN",
    num_convs=1,
    anchors=dict(
        sizes=[[s, s * 2 ** (1 / 3), s * 2 ** (2 / 3)] for s in (13, 26, 51, 102, 205)],
        aspect_ratios=(0.5, 1.0, 2.0),
    ),
    loss_cls=dict(type="FocalLoss"),
    loss_bbox=dict(type="L1Loss"),
)
