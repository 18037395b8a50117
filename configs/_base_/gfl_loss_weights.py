"""The table of loss weights for GFL, whose box losses weigh twice as much as FCOS's."""

_base_ = ["./loss_weights.py"]
loss_weights = dict(
    FCOS=dict(
        loss_bbox=dict(
            _delete_=True,
            GIoULoss=dict(loss_weight=2.0, source="2006.04388; mmdet gfl_r50_fpn"),
            fallback=dict(
                delta=dict(loss_weight=1.0, source="no published setting; 1, as in FCOS"),
                decoded=dict(loss_weight=2.0, source="no published setting; 2, as GFL's GIoU"),
            ),
        )
    )
)
