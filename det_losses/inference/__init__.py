"""Use a trained checkpoint: predictions on images and videos, and its export."""

from det_losses.inference.drawing import draw
from det_losses.inference.predict import detect, file_frames, predict
from det_losses.inference.trained import TrainedDetector, load_detector

__all__ = ["TrainedDetector", "detect", "draw", "file_frames", "load_detector", "predict"]
