"""RetinaNet: arguments, normalizers, and softmax instead of sigmoid."""

import pytest
import torch
from small_detectors import BACKBONE, LEVELS, retinanet

from det_losses.models import RetinaNet


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalizer": "anchor"}, "normalizer must be 'image' or 'batch', got 'anchor'"),
        ({"num_convs": 5}, "num_convs must be 1 to 4, got 5"),
        ({"class_to_channel": [0, 1]}, "class_to_channel must be 3 different channels"),
        ({"class_to_channel": [0, 1, 3]}, r"class_to_channel must be in 0..2 \(num_channels=3\)"),
        ({"anchors": {"sizes": [[8], [16, 24]], "aspect_ratios": [1.0]}}, "same number of sizes"),
        ({"head_norm": "LN"}, "norm must be one of"),
    ],
)
def test_retinanet_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        RetinaNet(BACKBONE, **{"num_classes": 3, "anchors": LEVELS, **arguments})


@pytest.mark.parametrize("loss_cls", ["FocalLoss", "CrossEntropyLoss"])
def test_the_initial_object_probability_of_an_anchor_is_the_prior(loss_cls):
    # 1708.02002, 3.3: 0.01 for each class with sigmoid; with softmax, whose classes are mutually
    # exclusive, 0.01 for any object.
    model = retinanet(loss_cls=loss_cls)
    logits = model.detector.head.classification_head.cls_logits.bias
    if loss_cls == "FocalLoss":
        torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.01))
    else:
        torch.testing.assert_close(logits.softmax(0)[:-1].sum(), torch.tensor(0.01))


def test_softmax_scores_of_retinanet_are_softmax_scores():
    model = retinanet(loss_cls="CrossEntropyLoss", score_thresh=0.0).eval()
    head = model.detector.head.classification_head.cls_logits
    torch.nn.init.normal_(head.weight, std=2.0)
    captured = {}
    head.register_forward_hook(lambda _m, _i, out: captured.setdefault(out.shape[-1], out))
    with torch.no_grad():
        scores = model([torch.rand(3, 64, 64)], mode="predict")[0]["scores"]
    every = torch.cat([out.flatten(2).softmax(dim=1)[:, :3].flatten() for out in captured.values()])
    # One anchor per location here, so channels are classes; NMS keeps the best score.
    torch.testing.assert_close(scores.max(), every.max())
    assert all((every - score).abs().min() < 1e-5 for score in scores[:20])


@pytest.mark.parametrize("normalizer", ["image", "batch"])
def test_normalizers_of_retinanet(normalizer):
    # Two images with different numbers of positives. 'image' is the mean of the images' losses;
    # 'batch' is the sum over both divided by all positives.
    torch.manual_seed(0)
    model = retinanet(normalizer=normalizer, min_size=64, max_size=64)
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    targets = [
        {"boxes": torch.tensor([[3.0, 5.0, 19.0, 20.0]]), "labels": torch.tensor([0])},
        {
            "boxes": torch.tensor([[0.0, 0.0, 16.0, 16.0], [30.0, 28.0, 62.0, 60.0]]),
            "labels": torch.tensor([1, 2]),
        },
    ]
    both = model(images, targets, mode="loss")
    alone = [model([i], [t], mode="loss") for i, t in zip(images, targets, strict=True)]
    counts = []
    compute = model.detector.head.compute_loss
    model.detector.head.compute_loss = lambda *a: counts.append((a[3][0] >= 0).sum()) or compute(*a)
    for image, target in zip(images, targets, strict=True):
        model([image], [target], mode="loss")
    assert counts[0] != counts[1]
    for slot in both:
        first, second = alone[0][slot], alone[1][slot]
        if normalizer == "image":
            want = (first + second) / 2
        else:
            want = (first * counts[0] + second * counts[1]) / (counts[0] + counts[1])
        torch.testing.assert_close(both[slot], want)
