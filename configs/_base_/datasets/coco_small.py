"""COCO data for few images: loaded in the main process, and kept decoded in memory."""

_base_ = ["./coco.py"]

in_memory = dict(num_workers=0, persistent_workers=False, dataset=dict(cache_mb=1000))
train_dataloader = dict(batch_size=8, **in_memory)
val_dataloader = in_memory
