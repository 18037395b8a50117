"""COCO's numbers for mmengine's Runner."""

from det_losses.evaluation.coco_metric import CocoMetric

__all__ = ["CocoMetric"]
