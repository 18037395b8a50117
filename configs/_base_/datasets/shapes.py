"""The built-in dataset of drawn shapes, generated on first use in `data_root`."""

data_root = "data/shapes"
num_val = 500  # a larger validation set narrows the intervals and costs only seconds

train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="detection_collate"),
    dataset=dict(
        type="ShapesDataset",
        data_root=data_root,
        split="train",
        num_val=num_val,
        transforms=[
            dict(type="RandomHorizontalFlip", p=0.5),
            dict(type="RandomVerticalFlip", p=0.5),
        ],
    ),
)
val_dataloader = dict(
    batch_size=25,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="detection_collate"),
    dataset=dict(
        type="ShapesDataset",
        data_root=data_root,
        split="val",
        num_val=num_val,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric")
test_evaluator = val_evaluator
