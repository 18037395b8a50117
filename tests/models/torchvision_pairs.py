"""Small detectors of torchvision and ours with equal weights, and a batch to train them with."""

import torch
from torchvision.models import detection as tv
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from det_losses.models import FCOS, FasterRCNN, RetinaNet, SmallResNetFPN

SIZE = {"min_size": 96, "max_size": 128}
FCOS_LAYERS = [
    "head.classification_head.cls_logits.weight",
    "head.regression_head.bbox_reg.weight",
    "head.regression_head.bbox_ctrness.weight",
]
NAMES = {
    "classification": "loss_cls",
    "bbox_regression": "loss_bbox",
    "bbox_ctrness": "loss_centerness",
    "loss_classifier": "loss_cls",
    "loss_box_reg": "loss_bbox",
    "loss_objectness": "loss_rpn_cls",
    "loss_rpn_box_reg": "loss_rpn_bbox",
}


def batch(dtype, labels):
    """Three images; the second has a different size and no boxes."""
    generator = torch.Generator().manual_seed(3)
    sizes = ((96, 112), (128, 96), (96, 112))
    images = [torch.rand(3, *size, generator=generator, dtype=dtype) for size in sizes]
    boxes = [
        torch.tensor([[4.0, 6.0, 60.0, 40.0], [50.0, 30.0, 100.0, 90.0]], dtype=dtype),
        torch.zeros(0, 4, dtype=dtype),
        torch.tensor([[10.0, 10.0, 42.0, 88.0]], dtype=dtype),
    ]
    targets = [
        {"boxes": box, "labels": torch.tensor(label, dtype=torch.int64)}
        for box, label in zip(boxes, labels, strict=True)
    ]
    return images, targets


def shifted(targets, by):
    return [{**target, "labels": target["labels"] + by} for target in targets]


def train_once(model, images, targets, **kwargs):
    """Return the losses and every gradient, with the samplers' random state fixed."""
    model.train()
    torch.manual_seed(7)
    losses = model(images, targets, **kwargs)
    sum(losses.values()).backward()
    return losses, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def body(extra_levels):
    """A small backbone with five levels and fixed weights."""
    torch.manual_seed(0)
    widths = (8, 8, 16, 16, 16, 16) if extra_levels == "pool" else (8, 8, 16, 16, 16)
    return SmallResNetFPN(widths, norm="FrozenBN", out_channels=64, extra_levels=extra_levels)


def retinanets(dtype):
    theirs = tv.RetinaNet(body("p6p7"), num_classes=5, **SIZE)
    return theirs.to(dtype), RetinaNet(body("p6p7"), num_classes=5, **SIZE).to(dtype)


def fcoses(dtype):
    theirs = tv.FCOS(body("p6p7"), num_classes=5, **SIZE)
    # With the initial weights, nearly all predicted boxes are points: distances are clamped at 0.
    randomise_outputs(theirs, FCOS_LAYERS)
    return theirs.to(dtype), FCOS(body("p6p7"), num_classes=5, **SIZE).to(dtype)


def faster_rcnns(dtype):
    few = {"box_batch_size_per_image": 64, "rpn_post_nms_top_n_train": 100, **SIZE}
    theirs = tv.FasterRCNN(
        body("pool"),
        box_head=TwoMLPHead(64 * 7**2, 64),
        box_predictor=FastRCNNPredictor(64, 6),
        **few,
    )
    ours = FasterRCNN(body("pool"), num_classes=5, representation_size=64, **few)
    # torchvision's RPN labels are always float32, which rounds its float64 loss to float32.
    assign = theirs.rpn.assign_targets_to_anchors
    theirs.rpn.assign_targets_to_anchors = lambda *args: (
        [labels.to(dtype) for labels in assign(*args)[0]],
        assign(*args)[1],
    )
    return theirs.to(dtype), ours.to(dtype)


def randomise_outputs(model, names):
    """Set weights of output layers large enough for confident, varied scores."""
    torch.manual_seed(1)
    for name in names:
        parameter = model.get_parameter(name)
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()
