"""The named layer puts out what torchvision calls the deltas of that head."""

import pytest
import torch
from torch import nn

from det_losses.models import FCOS, FasterRCNN, RetinaNet
from det_losses.models.box_outputs import box_layer_name

BACKBONE = {"type": "SmallResNetFPN", "out_channels": 16, "extra_levels": None}
LEVELS = {"sizes": [[16], [32], [64]], "aspect_ratios": [0.5, 2.0]}


def run_and_catch(model, slot):
    """Return what the slot's layer put out in a training pass."""
    outputs = []
    layer = model.get_submodule(box_layer_name(type(model), slot))
    layer.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    boxes = torch.tensor([[3.0, 5.0, 40.0, 44.0]])
    model.train()([torch.rand(3, 64, 64)], [{"boxes": boxes, "labels": torch.tensor([0])}], "loss")
    return outputs


def catch(module):
    outputs = []
    module.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    return outputs


def per_anchor(levels):
    """Reshape [1, 4 A, H, W] of each level as torchvision does, to [1, anchors, 4]."""
    rows = [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(1, -1, 4) for x in levels]
    return torch.cat(rows, dim=1)


def test_in_retinanet_the_layers_outputs_are_the_regression_heads():
    model = RetinaNet(BACKBONE, num_classes=3, anchors=LEVELS, min_size=64, max_size=64)
    heads = catch(model.detector.head.regression_head)
    levels = run_and_catch(model, "loss_bbox")
    # Strides 8, 16, 32 on 64 px, two anchors a place.
    assert [tuple(x.shape) for x in levels] == [(1, 8, 8, 8), (1, 8, 4, 4), (1, 8, 2, 2)]
    assert torch.equal(per_anchor(levels), heads[0])


def test_in_faster_rcnn_the_layers_outputs_are_the_heads_deltas():
    def build():
        return FasterRCNN(
            BACKBONE, 3, anchors=LEVELS, representation_size=32, min_size=64, max_size=64
        )

    model = build()
    rpn = catch(model.detector.rpn.head)
    levels = run_and_catch(model, "loss_rpn_bbox")
    assert len(levels) == 3
    assert all(torch.equal(x, y) for x, y in zip(levels, rpn[0][1], strict=True))
    model = build()
    predictor = catch(model.detector.roi_heads.box_predictor)
    (deltas,) = run_and_catch(model, "loss_bbox")
    assert deltas.shape[1] == 4 * 4  # three classes and the background
    assert torch.equal(deltas, predictor[0][1])


def test_a_derived_detector_has_the_layers_of_its_base():
    class Mine(RetinaNet):
        pass

    assert box_layer_name(Mine, "loss_bbox") == box_layer_name(RetinaNet, "loss_bbox")


@pytest.mark.parametrize(
    ("detector", "slot", "message"),
    [
        (RetinaNet, "loss_cls", "RetinaNet puts out no boxes for 'loss_cls'.*are loss_bbox$"),
        (FasterRCNN, "loss_box", "its box slots are loss_rpn_bbox, loss_bbox"),
        (FCOS, "loss_dfl", "FCOS puts out no boxes for 'loss_dfl'.*are loss_bbox$"),
        (nn.Linear, "loss_bbox", "outputs of RetinaNet, FasterRCNN, FCOS only are known"),
    ],
)
def test_other_slots_and_detectors_are_refused(detector, slot, message):
    with pytest.raises(ValueError, match=message):
        box_layer_name(detector, slot)
