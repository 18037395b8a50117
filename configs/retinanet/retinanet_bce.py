"""RetinaNet R50-FPN 1x on COCO, loss_cls: BinaryCrossEntropyLoss, weight 0.5.

The weight: 1708.02002 Table 1a: cross entropy balanced by alpha 0.5, which halves it.

    torchrun --nproc-per-node 8 tools/train.py retinanet/retinanet_bce \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./retinanet_base.py"]
model = dict(loss_cls=dict(_delete_=True, type="BinaryCrossEntropyLoss", loss_weight=0.5))
