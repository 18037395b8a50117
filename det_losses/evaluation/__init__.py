"""COCO's numbers: the metric of mmengine's Runner, matching, average precision, resampling."""
