"""FCOS R50-FPN 1x on COCO, loss_cls: QualityFocalLoss, weight 1, without a centre-ness branch.

The weight: 2006.04388; mmdet gfl_r50_fpn.

    torchrun --nproc-per-node 8 tools/train.py fcos/fcos_qfl \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./fcos_base.py"]
model = dict(loss_cls=dict(_delete_=True, type="QualityFocalLoss", loss_weight=1.0))
