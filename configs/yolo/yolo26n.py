"""YOLO26n from scratch on your own COCO data, see yolo/yolo11n."""

_base_ = ["./yolo11n.py"]
trainer = dict(model="yolo26n.yaml")
