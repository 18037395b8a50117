"""YOLO11n from scratch on your own COCO data, trained by ultralytics' own trainer.

    pip install 'det-losses[yolo]'
    det-losses compare yolo/yolo11n --losses CIoULoss EIoULoss SIoULoss \
        --train-ann train.json --train-images images --val-ann val.json --val-images images

ultralytics' defaults; the validation data are evaluated at the end only. Change an argument with
--cfg-options trainer.epochs=50. docs/yolo.md has a measured comparison.
"""

_base_ = ["../_base_/datasets/coco.py", "../_base_/runtime.py"]
trainer = dict(
    type="det_losses.adapters.ultralytics.comparison:UltralyticsTrainer",
    model="yolo11n.yaml",
    epochs=100,
    imgsz=640,
    batch=16,
    val=False,
)
