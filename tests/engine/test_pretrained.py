"""One key for the weights of a start: its sources and its hash."""

import pytest
from mmengine.config import Config

from det_losses.engine.pretrained import pin_weights, take_load_from, use_weights
from det_losses.errors import InputError, MissingFileError


@pytest.fixture
def cfg():
    return Config({"model": {"type": "RetinaNet"}, "load_from": None})


def test_the_option_sets_an_absolute_file(cfg, tmp_path, monkeypatch):
    (tmp_path / "a.pth").touch()
    monkeypatch.chdir(tmp_path)
    use_weights(cfg, "a.pth")
    assert cfg.model.weights == str(tmp_path / "a.pth")
    with pytest.raises(MissingFileError, match=r"^--weights-from: weights 'b\.pth': no such file"):
        use_weights(cfg, "b.pth")


def test_the_option_needs_a_detector_of_this_package(toy_cfg):
    with pytest.raises(InputError, match="ToyDetector is not a detector of this package"):
        use_weights(Config(toy_cfg()), "a.pth")


def test_load_from_is_the_same_key_unless_a_run_is_resumed(cfg, toy_cfg):
    cfg.update(load_from="a.pth", resume=True)
    take_load_from(cfg)
    assert (cfg.load_from, cfg.model.get("weights")) == ("a.pth", None)
    cfg.resume = False
    take_load_from(cfg)
    assert (cfg.load_from, cfg.model.weights) == (None, "a.pth")
    other = Config(toy_cfg(load_from="a.pth"))
    take_load_from(other)
    assert other.load_from == "a.pth"


def test_a_pinned_file_has_the_hash_of_its_bytes(cfg, tmp_path):
    file = tmp_path / "a.pth"
    file.write_bytes(b"abc")
    cfg.model.weights = str(file)
    pin_weights(cfg)
    # FIPS 180-2, appendix B.1: the SHA-256 of "abc"
    assert cfg.model.weights.sha256.startswith("ba7816bf8f01cfea414140de5dae2223")
    assert cfg.model.weights.file == str(file)
