"""Sums and products of losses: refused combinations and declarations.

test_conformance checks their values.
"""

import pytest
import torch

from det_losses import build_loss


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("SumLoss(L1Loss)", "SumLoss needs two losses or more"),
        ({"type": "SumLoss", "losses": "L1Loss"}, "SumLoss needs two losses or more, got 'L1Loss'"),
        ("ProductLoss(L1Loss(reduction='sum'), GIoULoss)", "give reduction to ProductLoss, not to"),
        ("SumLoss(GHMRLoss, GIoULoss)", "GHMRLoss divides by its own number of examples"),
        ("SumLoss(DistributionFocalLoss, L1Loss)", "takes only box and classification losses"),
        ("SumLoss(FocalLoss, CrossEntropyLoss)", "its losses are for sigmoid and softmax"),
    ],
)
def test_combinations_that_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_loss(config)


def test_a_composite_combines_the_declarations_of_its_losses():
    """With losses of both spaces it is on decoded boxes, with deltas as inputs."""
    deltas = build_loss("SumLoss(L1Loss, SmoothL1Loss)")
    assert (deltas.kind, deltas.space, deltas.inputs) == ("box", "delta", ())
    mixed = build_loss("ProductLoss(FocalLoss, L1Loss, MPDIoULoss)")
    assert (mixed.kind, mixed.space, mixed.activation) == ("box", "decoded", "sigmoid")
    assert mixed.inputs == ("logits", "labels", "pred_deltas", "target_deltas", "image_size")
    classes = build_loss("SumLoss(FocalLoss, BinaryCrossEntropyLoss)")
    assert (classes.kind, classes.space, classes.activation) == ("classification", None, "sigmoid")
    value = classes(torch.zeros(2, 3), torch.tensor([0, 3]), reduction_override="none")
    assert value.shape == (2, 3)
