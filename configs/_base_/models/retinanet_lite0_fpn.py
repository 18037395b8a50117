"""RetinaNet on EfficientNet-Lite0 at 320 px: the anchors are half as large as at 800 px."""

model = dict(
    type="RetinaNet",
    num_classes=None,  # from the data
    min_size=320,
    max_size=320,
    backbone=dict(
        type="EfficientNetLite0FPN",
        frozen_stages=2,
        out_channels=96,
        extra_levels="p6p7",
        fpn_norm="GN",
    ),
    head_norm="GN",
    num_convs=2,
    anchors=dict(
        sizes=[[s, s * 2 ** (1 / 3), s * 2 ** (2 / 3)] for s in (16, 32, 64, 128, 256)],
        aspect_ratios=(0.5, 1.0, 2.0),
    ),
    loss_cls=dict(type="FocalLoss"),
    loss_bbox=dict(type="L1Loss"),
)
