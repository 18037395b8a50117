"""The easy level of the built-in shapes, made on first use in `data_root`.

Loading is in the main process, because the comparisons of the quickstart keep all cores busy.
"""

data_root = "data/shapes_easy"
shapes = dict(num_train=1000, num_val=2000, image_size=96, level="easy", cache_mb=100)

train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="detection_collate"),
    dataset=dict(
        type="ShapesDataset",
        data_root=data_root,
        split="train",
        transforms=[
            dict(type="RandomHorizontalFlip", p=0.5),
            dict(type="RandomVerticalFlip", p=0.5),
        ],
        **shapes,
    ),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="detection_collate"),
    dataset=dict(
        type="ShapesDataset",
        data_root=data_root,
        split="val",
        test_mode=True,
        **shapes,
    ),
)
val_evaluator = dict(type="CocoMetric")
