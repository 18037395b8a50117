"""FCOS R50-FPN 1x on COCO, loss_cls: VarifocalLoss, weight 1, without a centre-ness branch.

The weight: mmdet vfnet_r50_fpn. As in VFNet a positive counts in `loss_bbox` by the IoU
of its predicted box; VFNet's refinement of boxes is not here.

    torchrun --nproc-per-node 8 tools/train.py fcos/fcos_vfl \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./fcos_base.py"]
model = dict(
    loss_cls=dict(_delete_=True, type="VarifocalLoss", loss_weight=1.0),
    box_weight="iou",
)
