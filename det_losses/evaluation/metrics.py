"""Names of the metrics, and COCO's IoU thresholds, recalls and areas."""

import numpy as np

# As in pycocotools, to the last bit: 0.9 is 0.8999999999999999.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# Ranges of the box area in pixels^2; both ends are included, as in COCO's own evaluation.
AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
MAX_DETS = 100  # detections of one class on one image that COCO evaluates, those of highest score

THRESHOLD_METRICS = tuple(f"AP{percent}" for percent in range(50, 100, 5))
SIZE_METRICS = {"APs": "small", "APm": "medium", "APl": "large"}
METRICS = ("AP", *THRESHOLD_METRICS, *SIZE_METRICS)
LOGGED_METRICS = ("AP", "AP50", "AP75", "AP80", "AP90", *SIZE_METRICS)
"""The METRICS that ``CocoMetric`` computes during training; the others are in reports only."""
