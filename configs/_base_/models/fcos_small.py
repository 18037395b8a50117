"""An FCOS with one million parameters for 128 px; trains from scratch in minutes on a CPU."""

model = dict(
    type="FCOS",
    num_classes=None,  # from the data
    min_size=128,
    max_size=128,
    backbone=dict(type="SmallResNetFPN", out_channels=64, extra_levels=None),
    num_convs=2,
    # Half the strides 8, 16, 32; otherwise nearly all shapes would be assigned to one level.
    anchor_sizes=(4, 8, 16),
    center_sampling_radius=3.0,  # in units of these sizes: 1.5 strides, as in the paper
    score_thresh=0.05,  # torchvision: 0.2, which removes more detections without centerness
    loss_cls=dict(type="FocalLoss"),
    loss_bbox=dict(type="GIoULoss"),
)
