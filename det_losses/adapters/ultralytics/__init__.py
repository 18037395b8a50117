"""YOLO models of ultralytics with losses of this package; see docs/yolo.md."""

from det_losses.adapters.ultralytics.criterion import use_losses
from det_losses.adapters.ultralytics.training import Trained, train

__all__ = ["Trained", "train", "use_losses"]
