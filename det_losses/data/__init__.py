"""From files to batches: COCO datasets and subsets, the built-in shapes, transforms, collate."""
