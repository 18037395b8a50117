"""FCOS R50-FPN 1x on COCO with a branch for the IoU of the predicted box, not for centre-ness.

    torchrun --nproc-per-node 8 tools/train.py fcos/fcos_iou_branch \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./fcos_base.py"]
model = dict(centerness_target="iou")
