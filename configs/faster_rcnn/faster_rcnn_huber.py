"""Faster R-CNN R50-FPN 1x on COCO, loss_bbox: HuberLoss, weight 1.

The weight: no published setting; 1, as every l_n loss here.

    torchrun --nproc-per-node 8 tools/train.py faster_rcnn/faster_rcnn_huber \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./faster_rcnn_base.py"]
model = dict(loss_bbox=dict(_delete_=True, type="HuberLoss", loss_weight=1.0))
