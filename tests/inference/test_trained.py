import pytest
import torch

from det_losses.errors import InputError
from det_losses.inference import load_detector


def weights_only(meta, state):
    return state


def test_config_classes_and_weights_come_from_the_checkpoint(checkpoint):
    path = checkpoint()
    detector = load_detector(path, device="cpu")
    assert (detector.classes, detector.category_ids) == (("cat", "dog"), (3, 7))
    assert not detector.model.training and not detector.notes
    stored = torch.load(path)["state_dict"]
    assert all(torch.equal(stored[k], v) for k, v in detector.model.state_dict().items())


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "gone.pth"])
def test_pretrained_weights_are_neither_downloaded_nor_read(checkpoint, weights, monkeypatch):
    """The norm is frozen, as the backbone has it with weights."""
    resnet = dict(type="ResNetFPN", name="resnet18", returned_layers=(3, 4), extra_levels=None)
    path = checkpoint(backbone=dict(resnet, out_channels=8, norm="FrozenBN"))
    content = torch.load(path)
    text = content["meta"]["cfg"].replace("norm='FrozenBN'", f"weights={weights!r}")
    assert weights in text
    content["meta"]["cfg"] = text
    torch.save(content, path)

    def no_network(*args, **kwargs):
        raise AssertionError("network")

    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    detector = load_detector(path, device="cpu")
    assert "FrozenBatchNorm2d" in str(detector.model.detector.backbone)


@pytest.mark.parametrize("loss", ["FocalLoss", "CrossEntropyLoss"])
def test_weights_alone_tell_the_number_of_classes(checkpoint, tmp_path, loss):
    """Softmax has a background channel beside the classes."""
    path = checkpoint(loss_cls=loss, content=weights_only)
    with pytest.raises(InputError, match=r"contains weights, but no config; .*--config"):
        load_detector(path)
    config = tmp_path / "config.py"
    meta = torch.load(checkpoint("whole.pth", loss_cls=loss))["meta"]
    text = meta["cfg"].replace("num_classes=2,", "num_classes=None,")
    config.write_text(f"{text}train_dataloader = val_evaluator = None\n")
    detector = load_detector(path, config=config, device="cpu")
    assert detector.classes == ("class_0", "class_1") and detector.category_ids == (1, 2)
    assert "does not contain the names of its 2 classes" in detector.notes[0]
    named = load_detector(path, config=config, classes=["a", "b"], device="cpu")
    assert named.classes == ("a", "b") and not named.notes
    with pytest.raises(InputError, match=r"with 3 classes: .*cls_logits"):
        load_detector(path, config=config, classes=["a", "b", "c"], device="cpu")


def test_a_wrong_number_of_names_is_refused(checkpoint):
    with pytest.raises(InputError, match="has 2 classes, but 1 name given"):
        load_detector(checkpoint(), classes=["cat"])


def test_the_stored_config_is_not_executed(checkpoint, tmp_path):
    def harmful(meta, state):
        cfg = f"model = dict(type=open({str(tmp_path / 'x')!r}, 'w'))"
        return dict(meta=dict(meta, cfg=cfg), state_dict=state)

    with pytest.raises(InputError, match="not a config of plain values"):
        load_detector(checkpoint(content=harmful))
    assert not (tmp_path / "x").exists()
    path = checkpoint(
        "os.pth", content=lambda m, s: dict(meta=dict(cfg="model=dict(type='os.abort')"))
    )
    with pytest.raises(InputError, match=r"'os\.abort' is not a model"):
        load_detector(path, classes=["a"])


def test_a_module_of_own_losses_that_is_missing_is_named(checkpoint):
    path = checkpoint(cfg=dict(custom_imports=dict(imports=["my_losses_1"])))
    with pytest.raises(InputError, match=r"imports \['my_losses_1'\], which fails .*PATH"):
        load_detector(path)


@pytest.mark.parametrize("device", ["cuda:77", "gpu"])
def test_a_device_that_does_not_exist_is_one_line(checkpoint, device):
    with pytest.raises(InputError, match=f"--device {device}: .*cannot be used") as info:
        load_detector(checkpoint(), device=device)
    assert "\n" not in str(info.value)
