"""Datasets: COCO files and subsets, the built-in shapes, transforms, collate."""
