"""RetinaNet R50-FPN 1x on COCO, loss_cls: CrossEntropyLoss, weight 1.

The weight: no published setting for softmax here; 1, as the focal loss.

    torchrun --nproc-per-node 8 tools/train.py retinanet/retinanet_ce \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./retinanet_base.py"]
model = dict(loss_cls=dict(_delete_=True, type="CrossEntropyLoss", loss_weight=1.0))
