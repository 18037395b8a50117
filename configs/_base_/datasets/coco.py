"""COCO 2017 in the usual layout under `data_root`; --train-ann etc. override the paths."""

data_root = "data/coco"

train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="detection_collate"),
    dataset=dict(
        type="CocoDataset",
        ann_file=f"{data_root}/annotations/instances_train2017.json",
        image_dir=f"{data_root}/train2017",
        transforms=[dict(type="RandomHorizontalFlip", p=0.5)],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="detection_collate"),
    dataset=dict(
        type="CocoDataset",
        ann_file=f"{data_root}/annotations/instances_val2017.json",
        image_dir=f"{data_root}/val2017",
        test_mode=True,
    ),
)
val_evaluator = dict(type="CocoMetric")
