"""RetinaNet R50-FPN 1x on COCO, loss_bbox: SmoothL1Loss, weight 1.

The weight: mmdet 1.x retinanet_r50_fpn (beta 0.11, about 1/9).

    torchrun --nproc-per-node 8 tools/train.py retinanet/retinanet_smooth_l1 \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./retinanet_base.py"]
model = dict(loss_bbox=dict(_delete_=True, type="SmoothL1Loss", loss_weight=1.0, beta=0.11))
