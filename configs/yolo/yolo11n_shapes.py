"""YOLO11n from scratch on the built-in shapes, trained by ultralytics' own trainer.

    det-losses compare yolo/yolo11n_shapes --losses CIoULoss EIoULoss --seeds 0 1

docs/yolo.md has the result.
"""

_base_ = ["../_base_/datasets/shapes.py", "../_base_/runtime.py"]
trainer = dict(
    type="det_losses.adapters.ultralytics.comparison:UltralyticsTrainer",
    model="yolo11n.yaml",
    epochs=12,
    imgsz=96,
    nbs=16,
    close_mosaic=5,
    val=False,
)
