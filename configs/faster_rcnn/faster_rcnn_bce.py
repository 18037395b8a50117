"""Faster R-CNN R50-FPN 1x on COCO, loss_cls: BinaryCrossEntropyLoss, weight 1.

The weight: no published setting; 1, as the cross entropy.

    torchrun --nproc-per-node 8 tools/train.py faster_rcnn/faster_rcnn_bce \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./faster_rcnn_base.py"]
model = dict(loss_cls=dict(_delete_=True, type="BinaryCrossEntropyLoss", loss_weight=1.0))
