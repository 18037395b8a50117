"""Faster R-CNN R50-FPN 1x on COCO, loss_bbox: SmoothL1Loss, weight 1.

The weight: torchvision.

    torchrun --nproc-per-node 8 tools/train.py faster_rcnn/faster_rcnn_smooth_l1 \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./faster_rcnn_base.py"]
model = dict(loss_bbox=dict(_delete_=True, type="SmoothL1Loss", loss_weight=1.0, beta=1 / 9))
