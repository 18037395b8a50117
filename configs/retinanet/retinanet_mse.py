"""RetinaNet R50-FPN 1x on COCO, loss_bbox: MSELoss, weight 1.

The weight: no published setting; 1, as every l_n loss here.

    torchrun --nproc-per-node 8 tools/train.py retinanet/retinanet_mse \\
        --launcher pytorch --cfg-options train_dataloader.batch_size=2

Hardware, time and result: not measured yet.
"""

_base_ = ["./retinanet_base.py"]
model = dict(loss_bbox=dict(_delete_=True, type="MSELoss", loss_weight=1.0))
