"""A RetinaNet of 0.4 million parameters for 96 px, trained from scratch in a minute on a CPU."""

model = dict(
    type="RetinaNet",
    num_classes=None,  # from the data
    min_size=96,
    max_size=96,
    backbone=dict(
        type="SmallResNetFPN",
        widths=(16, 32, 64, 96),
        out_channels=48,
        extra_levels=None,
    ),
    head_norm="GN",
    num_convs=1,
    # Strides 8 and 16. With a level of stride 32, AP was 9 points lower at equal CPU time.
    anchors=dict(sizes=[[27, 38], [53, 71]], aspect_ratios=(0.5, 1.0, 2.0)),
    loss_cls=dict(type="FocalLoss"),
    loss_bbox=dict(type="L1Loss"),
)
