"""A RetinaNet with one million parameters for 128 px; trains from scratch in minutes on a CPU."""

model = dict(
    type="RetinaNet",
    num_classes=None,  # from the data
    min_size=128,
    max_size=128,
    backbone=dict(type="SmallResNetFPN", out_channels=64, extra_levels=None),
    head_norm="GN",
    num_convs=2,
    # Strides 8, 16, 32: anchors are larger than the distance between their centres.
    anchors=dict(
        sizes=[[12, 16, 22], [30, 40, 54], [64, 84, 110]],
        aspect_ratios=(0.5, 1.0, 2.0),
    ),
    loss_cls=dict(type="FocalLoss"),
    loss_bbox=dict(type="L1Loss"),
)
