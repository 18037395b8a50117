"""Weights of a detector: what is loaded, made anew, refused, and not downloaded."""

import math
import os
import re
import zipfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from small_detectors import BACKBONE, LEVELS, faster_rcnn, retinanet
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.models import resnet18

from det_losses.models import FCOS, FasterRCNN, RetinaNet
from det_losses.models.weight_files import read_checkpoint
from det_losses.models.weights import describe_loaded

CLASS_LAYERS = ("cls_logits", "cls_score", "box_predictor.bbox_pred")


@pytest.fixture
def save(tmp_path):
    """Write a file of weights and return its path."""

    def write(content, name="given.pth"):
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return write


def state_of(model):
    return {name: value.clone() for name, value in model.detector.state_dict().items()}


def is_class_layer(name):
    return any(part in name for part in CLASS_LAYERS) and "rpn" not in name


def fcos(**kwargs):
    arguments = dict(num_classes=3, anchor_sizes=(8, 16, 32), num_convs=2) | kwargs
    return FCOS(BACKBONE | {"out_channels": 32}, **arguments)


@pytest.mark.parametrize("build", [retinanet, faster_rcnn, fcos])
@pytest.mark.parametrize("layout", ["torchvision", "det_losses"])
def test_all_but_a_class_layer_of_another_size_is_loaded(build, layout, save):
    trained = build()
    state = state_of(trained) if layout == "torchvision" else {"state_dict": trained.state_dict()}
    torch.manual_seed(3)
    fresh = state_of(other_size(build))
    torch.manual_seed(3)
    model = other_size(build, weights=save(state))
    wanted, got = state_of(trained), state_of(model)
    for name, value in got.items():
        assert torch.equal(value, (fresh if is_class_layer(name) else wanted)[name]), name
    count = sum(map(is_class_layer, got))
    record = model.loaded
    assert record["layout"] == layout and count in (2, 4)
    assert (record["anew"], record["unused"]) == (count, 0)
    assert record["loaded"] == record["tensors"] - count == len(got) - count
    (_, head), (is_warning, line) = describe_loaded(record)
    assert f"{record['loaded']} of the model's {len(got)} tensors" in head and not is_warning
    assert re.search(r"class layer \(.+\): made anew, with [56] channels; the file has [34]$", line)


def other_size(build, **kwargs):
    """The same detector for five classes."""
    if build is fcos:
        return fcos(num_classes=5, **kwargs)
    if build is retinanet:
        return RetinaNet(BACKBONE, num_classes=5, anchors=LEVELS, **kwargs)
    small = dict(anchors=LEVELS, representation_size=32, roi_size=3)
    return FasterRCNN(BACKBONE, num_classes=5, **small, **kwargs)


@pytest.mark.parametrize("build", [retinanet, faster_rcnn])
def test_names_of_old_torchvision_versions_are_those_that_it_renames_itself(build, save):
    trained = build()
    old = {}
    for name, value in trained.detector.state_dict().items():
        name = re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name)
        name = re.sub(r"(rpn\.head\.conv)\.0\.0\.", r"\1.", name)
        name = re.sub(r"(_head\.conv)\.(\d)\.0\.", lambda m: f"{m[1]}.{2 * int(m[2])}.", name)
        old[name] = value
    reference = build()
    reference.detector.load_state_dict(dict(old))  # a dict without versions: torchvision renames
    model = build(weights=save(old))
    assert model.loaded["anew"] == model.loaded["unused"] == 0
    for name, value in reference.detector.state_dict().items():
        assert torch.equal(model.detector.state_dict()[name], value)


def test_averaged_weights_are_preferred(save):
    plain, averaged = state_of(retinanet()), state_of(retinanet())
    prefixed = {f"module.{name}": value for name, value in averaged.items()}
    model = retinanet(weights=save({"model": plain, "model_ema": prefixed}))
    assert all(torch.equal(value, averaged[name]) for name, value in state_of(model).items())


class TestClasses:
    """A class layer takes the rows of the classes with the same name."""

    def file(self, save, model, classes):
        meta = {"dataset_meta": {"classes": classes}}
        return save({"state_dict": model.state_dict(), "meta": meta})

    def weights(self, save, model, theirs, ours):
        return {"file": self.file(save, model, theirs), "classes": ours}

    @pytest.mark.parametrize("loss", ["FocalLoss", "CrossEntropyLoss"])
    def test_retinanet(self, save, loss):
        trained = retinanet(loss_cls=loss)
        weights = self.weights(save, trained, ["cat", "dog", "cow"], ["horse", "cow", "cat"])
        torch.manual_seed(5)
        fresh = retinanet(loss_cls=loss)
        torch.manual_seed(5)
        model = retinanet(loss_cls=loss, weights=weights)
        rows = [  # [anchors, channels, ...]
            m.detector.head.classification_head.cls_logits.weight.unflatten(
                0, (-1, 4 if loss == "CrossEntropyLoss" else 3)
            )
            for m in (trained, fresh, model)
        ]
        theirs, new, got = rows
        assert torch.equal(got[:, 0], new[:, 0])
        assert torch.equal(got[:, 1], theirs[:, 2]) and torch.equal(got[:, 2], theirs[:, 0])
        assert torch.equal(got[:, 3:], theirs[:, 3:])  # the background
        (_, line) = describe_loaded(model.loaded)[1]
        assert line == "class layer (cls_logits): loaded by name for cow, cat; made anew for horse"

    def test_faster_rcnn(self, save):
        trained = faster_rcnn()
        weights = self.weights(save, trained, ["cat", "dog", "cow"], ["dog", "ox", "cat"])
        model = faster_rcnn(weights=weights)
        theirs, got = (m.detector.roi_heads.box_predictor for m in (trained, model))
        for of_theirs, of_ours in ((0, 0), (2, 1), (1, 3)):  # channel 0 is the background
            assert torch.equal(got.cls_score.weight[of_ours], theirs.cls_score.weight[of_theirs])
            sides = [slice(4 * k, 4 * k + 4) for k in (of_ours, of_theirs)]
            assert torch.equal(got.bbox_pred.weight[sides[0]], theirs.bbox_pred.weight[sides[1]])
        assert not torch.equal(got.cls_score.weight[2], theirs.cls_score.weight[3])

    @pytest.mark.parametrize(
        ("loss", "classes"), [("FocalLoss", ["a", "b", "c"]), ("CrossEntropyLoss", None)]
    )
    def test_other_classes_or_another_kind_of_loss_are_made_anew(self, save, loss, classes):
        known = ["cat", "dog", "cow"]
        weights = self.weights(save, retinanet(), known, classes or known)
        model = retinanet(loss_cls=loss, weights=weights)
        assert model.loaded["anew"] == 2
        assert "made anew" in model.loaded["class_layer"]

    def test_equal_classes_are_loaded_in_one_piece(self, save):
        trained, known = faster_rcnn(), ["cat", "dog", "cow"]
        model = faster_rcnn(weights=self.weights(save, trained, known, known))
        assert model.loaded["class_layer"] is None and model.loaded["anew"] == 0
        assert all(torch.equal(v, state_of(trained)[k]) for k, v in state_of(model).items())


R18 = {"type": "ResNetFPN", "name": "resnet18", "norm": "FrozenBN", "out_channels": 32}


def mmdetection_layer(state, name, *shape, bias=True):
    state[f"{name}.weight"] = torch.randn(shape) / math.sqrt(shape[1])
    if bias:
        state[f"{name}.bias"] = torch.randn(shape[0])


def mmdetection_state(levels=3):
    """mmdetection's names of ResNet-18 and FPN."""
    torch.manual_seed(0)
    body = resnet18(weights=None)
    for name, value in body.named_buffers():
        if name.endswith("running_mean"):
            value.normal_()
    state = {f"backbone.{k}": v for k, v in body.state_dict().items() if not k.startswith("fc.")}
    for i, width in enumerate((64, 128, 256, 512)[-levels:]):
        mmdetection_layer(state, f"neck.lateral_convs.{i}.conv", 32, width, 1, 1)
        mmdetection_layer(state, f"neck.fpn_convs.{i}.conv", 32, 32, 3, 3)
    return state


def conv(state, name, x, **kwargs):
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, **kwargs)


class TestMMDetection:
    """mmdetection's heads written from its documentation compute what the loaded model does."""

    def test_retinanet(self, save):
        state = mmdetection_state()
        mmdetection_layer(state, "neck.fpn_convs.3.conv", 32, 512, 3, 3)  # p6, from C5
        mmdetection_layer(state, "neck.fpn_convs.4.conv", 32, 32, 3, 3)
        for branch in ("cls", "reg"):
            for i in range(2):
                mmdetection_layer(state, f"bbox_head.{branch}_convs.{i}.conv", 32, 32, 3, 3)
        mmdetection_layer(state, "bbox_head.retina_cls", 9 * 3, 32, 3, 3)
        mmdetection_layer(state, "bbox_head.retina_reg", 9 * 4, 32, 3, 3)
        backbone = R18 | {"returned_layers": (2, 3, 4), "extra_levels": "p6p7"}
        meta = {"CLASSES": ("cat", "dog", "cow")}
        weights = {"file": save({"state_dict": state, "meta": meta}), "classes": [*meta["CLASSES"]]}
        model = RetinaNet(backbone, 3, num_convs=2, weights=weights).eval()
        assert model.loaded["layout"] == "mmdetection"
        # p6 and p7 have other inputs in mmdetection.
        assert model.loaded["anew_names"] == [
            f"backbone.fpn.extra_blocks.{level}.{name}"
            for level in ("p6", "p7")
            for name in ("weight", "bias")
        ]
        assert model.loaded["unused"] == 4

        image = torch.rand(1, 3, 64, 64)
        maps = model.detector.backbone.body(image).values()
        got = model.detector.backbone(image)
        laterals = [
            conv(state, f"neck.lateral_convs.{i}.conv", each) for i, each in enumerate(maps)
        ]
        for i in (1, 0):
            laterals[i] = laterals[i] + F.interpolate(laterals[i + 1], scale_factor=2)
        for i, each in enumerate(laterals):
            assert_close(got[str(i)], conv(state, f"neck.fpn_convs.{i}.conv", each))

        level = got["0"]
        outputs = model.detector.head([level])
        for branch, layer, size in (("cls", "cls_logits", 3), ("reg", "bbox_regression", 4)):
            x = level
            for i in range(2):
                x = conv(state, f"bbox_head.{branch}_convs.{i}.conv", x).relu()
            raw = conv(state, f"bbox_head.retina_{branch}", x)
            assert_close(outputs[layer], raw.permute(0, 2, 3, 1).reshape(1, -1, size))

    def test_faster_rcnn(self, save):
        state = mmdetection_state(levels=4)
        mmdetection_layer(state, "rpn_head.rpn_conv", 32, 32, 3, 3)
        mmdetection_layer(state, "rpn_head.rpn_cls", 3, 32, 1, 1)
        mmdetection_layer(state, "rpn_head.rpn_reg", 12, 32, 1, 1)
        mmdetection_layer(state, "roi_head.bbox_head.shared_fcs.0", 16, 32 * 9)
        mmdetection_layer(state, "roi_head.bbox_head.shared_fcs.1", 16, 16)
        mmdetection_layer(state, "roi_head.bbox_head.fc_cls", 4, 16)  # the background is last
        mmdetection_layer(state, "roi_head.bbox_head.fc_reg", 12, 16)
        arguments = dict(representation_size=16, roi_size=3, weights=save({"state_dict": state}))
        model = FasterRCNN(R18, 3, **arguments)
        assert (model.loaded["anew"], model.loaded["unused"]) == (0, 0)
        assert "RoIAlign" in model.loaded["notes"][0]

        level = torch.rand(1, 32, 5, 7)
        objectness, deltas = model.detector.rpn.head([level])
        x = conv(state, "rpn_head.rpn_conv", level).relu()
        assert_close(objectness[0], conv(state, "rpn_head.rpn_cls", x))
        assert_close(deltas[0], conv(state, "rpn_head.rpn_reg", x))

        pooled = torch.rand(2, 32, 3, 3)
        heads = model.detector.roi_heads
        logits, boxes = heads.box_predictor(heads.box_head(pooled))
        x = pooled.flatten(1)
        for name in ("shared_fcs.0", "shared_fcs.1"):
            x = linear(state, name, x).relu()
        scores = linear(state, "fc_cls", x).softmax(-1)
        assert_close(logits.softmax(-1)[:, 1:], scores[:, :-1])
        assert_close(boxes[:, 4:], linear(state, "fc_reg", x))

    def test_towers_of_fcos_and_what_has_no_counterpart(self, save):
        state = mmdetection_state()
        mmdetection_layer(state, "neck.fpn_convs.3.conv", 32, 32, 3, 3)
        mmdetection_layer(state, "neck.fpn_convs.4.conv", 32, 32, 3, 3)
        for branch in ("cls", "reg"):
            for i in range(2):
                mmdetection_layer(state, f"bbox_head.{branch}_convs.{i}.conv", 32, 32, 3, 3)
                state[f"bbox_head.{branch}_convs.{i}.gn.weight"] = torch.rand(32)
                state[f"bbox_head.{branch}_convs.{i}.gn.bias"] = torch.rand(32)
        mmdetection_layer(state, "bbox_head.conv_cls", 3, 32, 3, 3)
        mmdetection_layer(state, "bbox_head.conv_reg", 4, 32, 3, 3)
        mmdetection_layer(state, "bbox_head.conv_centerness", 1, 32, 3, 3)
        backbone = R18 | {"returned_layers": (2, 3, 4), "extra_levels": "p6p7"}
        model = FCOS(backbone, 3, num_convs=2, weights=save({"state_dict": state}))
        assert model.loaded["anew_names"] == [
            f"head.regression_head.{layer}.{name}"
            for layer in ("bbox_reg", "bbox_ctrness")
            for name in ("weight", "bias")
        ]
        level = x = torch.rand(1, 32, 5, 7)
        for i in range(2):
            name = f"bbox_head.cls_convs.{i}"
            norm = [state[f"{name}.gn.{part}"] for part in ("weight", "bias")]
            x = F.group_norm(conv(state, f"{name}.conv", x), 32, *norm).relu()
        wanted = conv(state, "bbox_head.conv_cls", x).permute(0, 2, 3, 1).reshape(1, -1, 3)
        assert_close(model.detector.head([level])["cls_logits"], wanted)

    @pytest.mark.parametrize("how", ["config", "statistics"])
    def test_a_backbone_of_caffe_is_refused(self, save, how):
        state, meta = mmdetection_state(), {}
        if how == "config":
            meta = {"cfg": "model = dict(backbone=dict(type='ResNet', style='caffe'))"}
        else:
            state["backbone.bn1.running_mean"].zero_()
        with pytest.raises(ValueError, match="a ResNet of caffe's style"):
            RetinaNet(R18, 3, weights=save({"state_dict": state, "meta": meta}))


def linear(state, name, x):
    name = f"roi_head.bbox_head.{name}"
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


class TestRefused:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"other.weight": torch.ones(2)}, "no tensor of the file has the name and shape"),
            ({"conv1.weight": torch.ones(2)}, "give them as model.backbone.weights"),
            ({}, "it has no tensors"),
            ([1], "is not a checkpoint: it contains a list"),
        ],
    )
    def test_a_file_of_something_else(self, save, content, message):
        with pytest.raises(ValueError, match=message):
            retinanet(weights=save(content))

    def test_a_damaged_file(self, tmp_path):
        (tmp_path / "junk.pth").write_bytes(b"junk")
        with pytest.raises(ValueError, match=r"junk\.pth is not .*not written by torch\.save"):
            retinanet(weights=str(tmp_path / "junk.pth"))

    def test_the_checksums_of_a_file_are_verified_once_per_state(self, save, monkeypatch):
        path, verified = Path(save({"a": torch.zeros(3)})), []
        original = zipfile.ZipFile.testzip
        monkeypatch.setattr(
            zipfile.ZipFile, "testzip", lambda self: verified.append(1) or original(self)
        )
        for _ in range(3):
            read_checkpoint(path)
        assert len(verified) == 1
        os.utime(path, ns=(1, 1))
        read_checkpoint(path)
        assert len(verified) == 2

    def test_no_file(self):
        with pytest.raises(FileNotFoundError, match=r"'nowhere\.pth': no such file"):
            retinanet(weights="nowhere.pth")

    def test_a_changed_file(self, save):
        file = save(state_of(retinanet()))
        digest = retinanet(weights=file).loaded["sha256"]
        assert retinanet(weights={"file": file, "sha256": digest}).loaded["anew"] == 0
        save(state_of(retinanet()))
        with pytest.raises(ValueError, match=r"the file was changed; its SHA-256 is \w{12}"):
            retinanet(weights={"file": file, "sha256": digest})

    @pytest.mark.parametrize("norms", [("BN", "GN"), ("GN", "BN")])
    def test_another_kind_of_norm(self, save, norms):
        file, model = (BACKBONE | {"norm": norm} for norm in norms)
        trained = RetinaNet(file, num_classes=3, anchors=LEVELS)
        kinds = {"BN": "batch", "GN": "group"}
        message = rf"is a {kinds[norms[0]]} norm in the file and a {kinds[norms[1]]} norm"
        with pytest.raises(ValueError, match=message):
            RetinaNet(model, num_classes=3, anchors=LEVELS, weights=save(state_of(trained)))


def test_few_loaded_tensors_are_a_warning(save):
    state = {k: v for k, v in state_of(retinanet()).items() if k.startswith("head.")}
    model = retinanet(weights=save(state))
    *_, (is_warning, line) = describe_loaded(model.loaded)
    assert is_warning
    assert line.startswith("weights: less than half of the model is loaded; missing: backbone.body")


class TestBackbone:
    """The weights of a backbone are read only if the detector's lack it."""

    @pytest.fixture
    def offline(self, monkeypatch, tmp_path):
        def refuse(*args, **kwargs):
            raise URLError("no route to host")

        monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def build(self, **backbone):
        levels = {"returned_layers": (2, 3, 4), "extra_levels": "p6p7", "out_channels": 16}
        arguments = {"type": "ResNetFPN", "name": "resnet18"} | levels | backbone
        return lambda weights=None: RetinaNet(arguments, 3, weights=weights)

    def test_without_network(self, offline, save):
        pretrained = self.build(weights="IMAGENET1K_V1")
        with pytest.raises(FileNotFoundError, match=r"cannot be downloaded .*no route") as info:
            pretrained()
        assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(info.value)
        assert "--weights-from" in str(info.value) and "\n" not in str(info.value)

        state = state_of(self.build(norm="FrozenBN")())
        model = pretrained(save(state))
        assert model.loaded["anew"] == 0
        # The settings of a pretrained body: frozen norms, and a frozen first stage.
        body = model.detector.backbone.body
        assert not body.layer1[0].conv1.weight.requires_grad
        assert body.layer2[0].conv1.weight.requires_grad
        with pytest.raises(FileNotFoundError, match="cannot be downloaded"):
            pretrained(save({k: v for k, v in state.items() if "body.layer1" not in k}))

    def test_a_cache_that_cannot_be_made_is_named(self, monkeypatch, tmp_path):
        (tmp_path / "file").touch()
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "file" / "hub"))
        message = r"cannot be downloaded \(.*Not a directory.* save it as .*/file/hub/checkpoints/"
        with pytest.raises(FileNotFoundError, match=message):
            self.build(weights="IMAGENET1K_V1")()

    def test_a_frozen_body_needs_weights(self, save):
        build = self.build(frozen_stages=2, norm="FrozenBN")
        state = {k: v for k, v in state_of(build()).items() if "body.layer1" not in k}
        with pytest.raises(ValueError, match=r"layer1\S+ is frozen, but weights .*frozen_stages=0"):
            build(save(state))
