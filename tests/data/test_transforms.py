import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from det_losses.data.transforms import apply_transforms, build_transforms, seeded
from det_losses.registry import TRANSFORMS, NotRegisteredError, find


def sample(boxes=((10, 5, 30, 25), (50, 20, 60, 60))):
    image = torch.arange(3 * 64 * 96, dtype=torch.int64).remainder(255).to(torch.uint8)
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return image.reshape(3, 64, 96), boxes, torch.arange(len(boxes)) + 4


def apply(*specs, **options):
    return apply_transforms(build_transforms(specs), *sample(**options))


def test_every_torchvision_transform_is_registered_by_name():
    for name in (
        "RandomHorizontalFlip",
        "RandomIoUCrop",
        "ScaleJitter",
        "RandomPhotometricDistort",
    ):
        assert find(TRANSFORMS, name) is getattr(v2, name)


def test_flip_mirrors_image_and_boxes():
    image, boxes, labels = apply(dict(type="RandomHorizontalFlip", p=1.0))
    assert torch.equal(image, sample()[0].flip(-1))
    # width 96: x of [10, 30] becomes [96 - 30, 96 - 10], of [50, 60] [36, 46]; y stays
    assert boxes.tolist() == [[66, 5, 86, 25], [36, 20, 46, 60]]
    assert labels.tolist() == [4, 5]


def test_flips_equal_torchvisions():
    # over the edges, one pixel wide, and thinner
    boxes = ((-3, 5, 30, 25), (50, 20, 99, 70), (40, 8, 41, 30), (7, 9, 7.9, 40))
    specs = [dict(type="RandomHorizontalFlip"), dict(type="RandomVerticalFlip", p=0.4)]
    mirrored = set()
    for seed in range(20):
        found = []
        for general in (False, True):  # an unknown transform requires torchvision's own code
            with seeded(seed):
                found.append(apply(*specs, *[lambda each: each] * general, boxes=boxes))
                found[-1] += (torch.rand(1),)
        for ours, theirs in zip(*found, strict=True):
            assert type(ours) is torch.Tensor and torch.equal(ours, theirs)
        mirrored.add(tuple(found[0][1][0].tolist()))
    assert len(mirrored) == 4


def test_crop_drops_boxes_outside_with_their_labels():
    # the middle 40 x 40 of 96 x 64 is x 28..68, y 12..52: the first box keeps x 28..30, y 12..25,
    # that is 0..2, 0..13 in the crop; with x up to 28 only, it would be gone
    image, boxes, labels = apply(dict(type="CenterCrop", size=40))
    assert image.shape == (3, 40, 40)
    assert boxes.tolist() == [[0, 0, 2, 13], [22, 8, 32, 40]]
    outside = ((10, 5, 28, 25), (10, 5, 28.5, 25), (50, 20, 60, 60))
    _, boxes, labels = apply(dict(type="CenterCrop", size=40), boxes=outside)
    assert boxes.tolist() == [[22, 8, 32, 40]] and labels.tolist() == [6]


def test_boxes_that_a_transform_moves_over_the_edge_are_cut_there():
    def shift(sample):
        return {**sample, "boxes": tv_tensors.wrap(sample["boxes"] + 40, like=sample["boxes"])}

    # 40 px to the right and down in 96 x 64: y 45..65 ends at 64; x 90..100 ends at 96, y 60..100
    # at 64
    _, boxes, labels = apply(shift)
    assert boxes.tolist() == [[50, 45, 70, 64], [90, 60, 96, 64]]
    assert labels.tolist() == [4, 5]


def test_output_is_plain_tensors():
    for tensor in apply(dict(type="RandomHorizontalFlip", p=1.0)):
        assert type(tensor) is torch.Tensor


@pytest.mark.parametrize(
    "spec",
    [
        dict(type="RandomIoUCrop"),
        dict(type="ScaleJitter", target_size=(64, 64)),
        dict(type="RandomZoomOut", p=1.0),
        dict(type="RandomPhotometricDistort"),
    ],
)
def test_an_image_without_boxes_passes(spec):
    image, boxes, labels = apply(spec, boxes=())
    assert image.dtype == torch.uint8
    assert boxes.shape == (0, 4) and boxes.dtype == torch.float32
    assert labels.shape == (0,) and labels.dtype == torch.int64


def test_transforms_in_transforms_and_ready_made_ones():
    nested = dict(type="RandomApply", p=1.0, transforms=[dict(type="RandomHorizontalFlip", p=1.0)])
    for spec in (nested, v2.RandomHorizontalFlip(p=1.0)):
        assert torch.equal(apply(spec)[0], sample()[0].flip(-1))


def test_misspelt_name_suggests_the_right_one():
    with pytest.raises(NotRegisteredError, match=r"RandomHorisontalFlip.*'RandomHorizontalFlip'"):
        build_transforms([dict(type="RandomHorisontalFlip")])


def test_wrong_argument_names_the_transform():
    with pytest.raises(TypeError, match=r"transform RandomHorizontalFlip: .*'prob'"):
        build_transforms([dict(type="RandomHorizontalFlip", prob=0.5)])


@pytest.mark.parametrize("specs", ["RandomHorizontalFlip", dict(type="RandomHorizontalFlip")])
def test_a_list_is_needed(specs):
    with pytest.raises(TypeError, match="transforms must be a list of dict"):
        build_transforms(specs)


@pytest.mark.parametrize("spec", ["RandomHorizontalFlip", dict(p=0.5)])
def test_each_transform_needs_a_type(spec):
    with pytest.raises(TypeError, match="a transform must be a dict with its name as 'type'"):
        build_transforms([spec])


@pytest.mark.parametrize(
    ("spec", "got"),
    [
        (dict(type="ToDtype", dtype=torch.float32, scale=True), r"torch.float32 \[3, 64, 96\]"),
        (dict(type="Grayscale"), r"torch.uint8 \[1, 64, 96\]"),
        (dict(type="ToPILImage"), "PIL"),
    ],
)
def test_the_image_must_stay_uint8_rgb(spec, got):
    with pytest.raises(TypeError, match=f"the image must be a uint8 tensor .*got .*{got}"):
        apply(spec)


def test_seeded_depends_on_its_numbers_alone_and_leaves_the_generator():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(1, 2, 3):
        first = torch.rand(4)
    assert torch.equal(torch.rand(2), expected)
    with seeded(1, 2, 3):
        assert torch.equal(torch.rand(4), first)
    with seeded(1, 2, 4):
        assert not torch.equal(torch.rand(4), first)
