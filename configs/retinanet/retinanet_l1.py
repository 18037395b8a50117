"""RetinaNet R50-FPN 1x on COCO, loss_bbox: L1Loss, weight 1.

The weight: torchvision; mmdet retinanet_r50_fpn.

    torchrun --nproc-per-node 8 tools/train.py retinanet/retinanet_l1 \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./retinanet_base.py"]
model = dict(loss_bbox=dict(_delete_=True, type="L1Loss", loss_weight=1.0))
