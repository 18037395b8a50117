"""Faster R-CNN R50-FPN 1x on COCO, loss_bbox: CIoULoss, weight 12.

The weight: mmdet faster-rcnn_r50_fpn_ciou; 1911.08287.

    torchrun --nproc-per-node 8 tools/train.py faster_rcnn/faster_rcnn_ciou \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./faster_rcnn_base.py"]
model = dict(loss_bbox=dict(_delete_=True, type="CIoULoss", loss_weight=12.0))
