"""COCO metrics: the metric of mmengine's Runner, matching, average precision, resampling."""
