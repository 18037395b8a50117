"""Faster R-CNN R50-FPN 1x on COCO, loss_bbox: DIoULoss, weight 10.

The weight: 10, as mmdet's GIoU (1911.08287 has 12 for all of the family).

    torchrun --nproc-per-node 8 tools/train.py faster_rcnn/faster_rcnn_diou \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./faster_rcnn_base.py"]
model = dict(loss_bbox=dict(_delete_=True, type="DIoULoss", loss_weight=10.0))
