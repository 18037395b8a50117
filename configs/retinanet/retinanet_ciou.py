"""RetinaNet R50-FPN 1x on COCO, loss_bbox: CIoULoss, weight 2.5.

The weight: 2101.08158, for its IoU-type losses.

    torchrun --nproc-per-node 8 tools/train.py retinanet/retinanet_ciou \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./retinanet_base.py"]
model = dict(loss_bbox=dict(_delete_=True, type="CIoULoss", loss_weight=2.5))
