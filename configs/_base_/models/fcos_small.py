"""An FCOS of one million parameters for 128 px, trained from scratch in minutes on a CPU."""

model = dict(
    type="FCOS",
    num_classes=None,  # from the data
    min_size=128,
    max_size=128,
    backbone=dict(type="SmallResNetFPN", out_channels=64, extra_levels=None),
    num_convs=2,
    # Half of the strides 8, 16, 32: at the strides, one level would take nearly all shapes.
    anchor_sizes=(4, 8, 16),
    center_sampling_radius=3.0,  # of these sizes, so 1.5 strides as in the paper
    score_thresh=0.05,  # torchvision: 0.2, which cuts off more of a score without centre-ness
    loss_cls=dict(type="FocalLoss"),
    loss_bbox=dict(type="GIoULoss"),
)
