"""Faster R-CNN on EfficientNet-Lite0 at 256 px: fewer proposals and a narrower RoI head."""

model = dict(
    type="FasterRCNN",
    num_classes=None,  # from the data
    min_size=256,
    max_size=256,
    backbone=dict(
        type="EfficientNetLite0FPN",
        frozen_stages=4,  # all but the last
        feature_cache_mb=500,  # their features, for images that come again
        out_indices=(1, 2, 3, 4),
        out_channels=64,
        extra_levels="pool",
        fpn_norm="GN",
    ),
    anchors=dict(sizes=[[16], [32], [64], [128], [256]], aspect_ratios=(0.5, 1.0, 2.0)),
    representation_size=256,
    rpn_pre_nms_top_n_train=500,
    rpn_post_nms_top_n_train=300,
    rpn_pre_nms_top_n_test=500,
    rpn_post_nms_top_n_test=300,
    box_batch_size_per_image=64,
    loss_rpn_cls=dict(type="BinaryCrossEntropyLoss"),
    loss_rpn_bbox=dict(type="SmoothL1Loss"),
    loss_cls=dict(type="CrossEntropyLoss"),
    loss_bbox=dict(type="SmoothL1Loss"),
)
