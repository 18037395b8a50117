import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from det_losses.models.transform import SizingTransform


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("shapes", "settings"),
    [
        ([(41, 60)] * 3, dict(min_size=[64], max_size=90)),  # to 61.5 x 90, which is 61 x 90
        ([(64, 80)] * 3, dict(min_size=[64], max_size=90)),  # not resized
        ([(64, 80)] * 3, dict(min_size=[48, 64], max_size=90)),  # a random size for each image
        ([(33, 70)] * 2, dict(min_size=[64], max_size=90, fixed_size=(50, 40))),
        ([(64, 80), (40, 60)], dict(min_size=[64], max_size=90)),
    ],
)
def test_images_and_boxes_are_transformed_as_by_torchvision(shapes, settings, training):
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
    theirs = GeneralizedRCNNTransform(image_mean=mean, image_std=std, **settings).train(training)
    ours = SizingTransform(theirs).train(training)
    images = [torch.randint(256, (3, *shape), dtype=torch.uint8) for shape in shapes]
    targets = [dict(boxes=torch.tensor([[3.0, 5, 30, 22 + i]])) for i in range(len(images))]
    found = []
    for transform, given in ((ours, images), (theirs, [image / 255 for image in images])):
        torch.manual_seed(1)
        found.append((*transform(given, targets), torch.rand(1)))
    (batch, moved, drawn), (expected, boxes, number) = found
    assert torch.equal(batch.tensors, expected.tensors)
    assert list(map(tuple, batch.image_sizes)) == list(map(tuple, expected.image_sizes))
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(moved, boxes, strict=True))
    assert [each["image_size"][::-1] for each in moved] == list(map(tuple, batch.image_sizes))
    assert drawn == number
