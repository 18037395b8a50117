"""Which weight and parameters a loss gets when it is named without its own: detector, slot, loss.

The comparison looks here, prints what it took with its source, and an entry of the command line
(``"GIoULoss:loss_weight=5"``) overrides it. `fallback` holds what a loss without a line gets, by
its space (box losses) or its activation (classification losses).

mmdet: the config named, in open-mmlab/mmdetection 3.x unless said. torchvision: 0.29.
"""

loss_weights = dict(
    RetinaNet=dict(
        loss_cls=dict(
            FocalLoss=dict(
                loss_weight=1.0, source="1708.02002 (alpha 0.25, gamma 2); torchvision; mmdet"
            ),
            BinaryCrossEntropyLoss=dict(
                loss_weight=0.5,
                source="1708.02002 Table 1a: cross entropy balanced by alpha 0.5, which halves it",
            ),
            CrossEntropyLoss=dict(
                loss_weight=1.0,
                source="no published setting for softmax here; 1, as the focal loss",
            ),
            GHMCLoss=dict(
                loss_weight=1.0,
                bins=30,
                momentum=0.75,
                source="mmdet retinanet_ghm_r50_fpn (2.x)",
            ),
            fallback=dict(
                sigmoid=dict(loss_weight=1.0, source="no published setting; 1, as the focal loss"),
                softmax=dict(loss_weight=1.0, source="no published setting; 1, as the focal loss"),
            ),
        ),
        loss_bbox=dict(
            L1Loss=dict(loss_weight=1.0, source="torchvision; mmdet retinanet_r50_fpn"),
            SmoothL1Loss=dict(
                loss_weight=1.0,
                beta=0.11,
                source="mmdet 1.x retinanet_r50_fpn (beta 0.11, about 1/9)",
            ),
            MSELoss=dict(loss_weight=1.0, source="no published setting; 1, as every l_n loss here"),
            HuberLoss=dict(
                loss_weight=1.0, source="no published setting; 1, with the default delta of 1"
            ),
            FocalL1Loss=dict(
                loss_weight=1.0, source="no weight in 2101.08158; 1, as every l_n loss here"
            ),
            BalancedL1Loss=dict(
                loss_weight=1.0, beta=0.11, source="mmdet libra_retinanet_r50_fpn (2.x)"
            ),
            GHMRLoss=dict(
                loss_weight=10.0, momentum=0.7, source="mmdet retinanet_ghm_r50_fpn (2.x)"
            ),
            IoULoss=dict(loss_weight=2.5, source="2101.08158, for its IoU-type losses"),
            GIoULoss=dict(loss_weight=2.5, source="2101.08158, for its IoU-type losses"),
            DIoULoss=dict(loss_weight=2.5, source="2101.08158, for its IoU-type losses"),
            CIoULoss=dict(loss_weight=2.5, source="2101.08158, for its IoU-type losses"),
            EIoULoss=dict(loss_weight=2.5, source="2101.08158, for its IoU-type losses"),
            FocalEIoULoss=dict(loss_weight=2.5, source="2101.08158, for its IoU-type losses"),
            fallback=dict(
                delta=dict(
                    loss_weight=1.0, source="no published setting; 1, as every l_n loss here"
                ),
                decoded=dict(
                    loss_weight=2.5,
                    source="no published setting; 2.5, as 2101.08158's IoU-type losses",
                ),
            ),
        ),
    ),
    FasterRCNN=dict(
        loss_rpn_cls=dict(
            BinaryCrossEntropyLoss=dict(
                loss_weight=1.0, source="torchvision; mmdet faster-rcnn_r50_fpn"
            ),
            FocalLoss=dict(
                loss_weight=1.0, source="no published setting on the RPN's sampled anchors; 1"
            ),
            fallback=dict(
                sigmoid=dict(
                    loss_weight=1.0, source="no published setting; 1, as the cross entropy"
                ),
                softmax=dict(
                    loss_weight=1.0, source="no published setting; 1, as the cross entropy"
                ),
            ),
        ),
        loss_rpn_bbox=dict(
            SmoothL1Loss=dict(loss_weight=1.0, beta=1 / 9, source="torchvision"),
            L1Loss=dict(loss_weight=1.0, source="mmdet faster-rcnn_r50_fpn"),
            IoULoss=dict(
                loss_weight=10.0, mode="linear", source="mmdet cascade-rpn_r50-caffe_fpn (1 - IoU)"
            ),
            fallback=dict(
                delta=dict(
                    loss_weight=1.0, source="no published setting; 1, as every l_n loss here"
                ),
                decoded=dict(
                    loss_weight=10.0,
                    source="no published setting; 10, as mmdet's IoU loss in an RPN",
                ),
            ),
        ),
        loss_cls=dict(
            CrossEntropyLoss=dict(loss_weight=1.0, source="torchvision; mmdet faster-rcnn_r50_fpn"),
            BinaryCrossEntropyLoss=dict(
                loss_weight=1.0, source="no published setting; 1, as the cross entropy"
            ),
            FocalLoss=dict(
                loss_weight=1.0,
                source="no published setting on sampled RoIs; 1, as the cross entropy",
            ),
            fallback=dict(
                sigmoid=dict(
                    loss_weight=1.0, source="no published setting; 1, as the cross entropy"
                ),
                softmax=dict(
                    loss_weight=1.0, source="no published setting; 1, as the cross entropy"
                ),
            ),
        ),
        loss_bbox=dict(
            SmoothL1Loss=dict(loss_weight=1.0, beta=1 / 9, source="torchvision"),
            L1Loss=dict(loss_weight=1.0, source="mmdet faster-rcnn_r50_fpn"),
            BalancedL1Loss=dict(loss_weight=1.0, source="mmdet libra-faster-rcnn_r50_fpn"),
            BoundedIoULoss=dict(loss_weight=10.0, source="mmdet faster-rcnn_r50_fpn_bounded-iou"),
            IoULoss=dict(loss_weight=10.0, source="mmdet faster-rcnn_r50_fpn_iou"),
            GIoULoss=dict(loss_weight=10.0, source="mmdet faster-rcnn_r50_fpn_giou"),
            DIoULoss=dict(
                loss_weight=10.0,
                source="10, as mmdet's GIoU (1911.08287 has 12 for all of the family)",
            ),
            CIoULoss=dict(loss_weight=12.0, source="mmdet faster-rcnn_r50_fpn_ciou; 1911.08287"),
            EIoULoss=dict(loss_weight=10.0, source="no published setting; 10, as mmdet's GIoU"),
            FocalEIoULoss=dict(
                loss_weight=10.0, source="no published setting; 10, as mmdet's GIoU"
            ),
            fallback=dict(
                delta=dict(
                    loss_weight=1.0, source="no published setting; 1, as every l_n loss here"
                ),
                decoded=dict(
                    loss_weight=10.0,
                    source="no published setting; 10, as mmdet's GIoU in a RoI head",
                ),
            ),
        ),
    ),
    FCOS=dict(
        loss_cls=dict(
            FocalLoss=dict(
                loss_weight=1.0,
                source="1904.01355; torchvision; mmdet fcos_r50-caffe_fpn_gn-head",
            ),
            QualityFocalLoss=dict(loss_weight=1.0, source="2006.04388; mmdet gfl_r50_fpn"),
            VarifocalLoss=dict(loss_weight=1.0, source="mmdet vfnet_r50_fpn"),
            fallback=dict(
                sigmoid=dict(loss_weight=1.0, source="no published setting; 1, as the focal loss"),
            ),
        ),
        loss_bbox=dict(
            IoULoss=dict(loss_weight=1.0, source="1904.01355; mmdet fcos_r50-caffe_fpn_gn-head"),
            GIoULoss=dict(
                loss_weight=1.0,
                source="torchvision; mmdet fcos_r50-caffe_fpn_gn-head-center-normbbox-"
                "centeronreg-giou",
            ),
            fallback=dict(
                delta=dict(loss_weight=1.0, source="no published setting; 1, as the IoU loss"),
                decoded=dict(loss_weight=1.0, source="no published setting; 1, as the GIoU loss"),
            ),
        ),
        loss_centerness=dict(
            BinaryCrossEntropyLoss=dict(
                loss_weight=1.0,
                source="1904.01355; torchvision; mmdet fcos_r50-caffe_fpn_gn-head",
            ),
            fallback=dict(
                sigmoid=dict(
                    loss_weight=1.0, source="no published setting; 1, as the cross entropy"
                ),
            ),
        ),
        loss_dfl=dict(
            DistributionFocalLoss=dict(loss_weight=0.25, source="2006.04388; mmdet gfl_r50_fpn"),
            fallback=dict(
                distribution=dict(
                    loss_weight=0.25,
                    source="no published setting; 0.25, as the distribution focal loss",
                ),
            ),
        ),
    ),
)
