"""FCOS R50-FPN 1x on COCO, loss_bbox: GIoULoss, weight 1, as in torchvision.

    torchrun --nproc-per-node 8 tools/train.py fcos/fcos_giou \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./fcos_base.py"]
model = dict(loss_bbox=dict(_delete_=True, type="GIoULoss", loss_weight=1.0))
