import sys

import pytest
import torch

from det_losses.cli.export import main
from det_losses.engine import config_text
from det_losses.engine.config import read_config
from det_losses.registry import MODELS


@pytest.fixture
def checkpoint(tiny_config, tmp_path):
    cfg = read_config(str(tiny_config))
    cfg.model.update(num_classes=2)
    meta = dict(cfg=config_text(cfg), dataset_meta=dict(classes=["cat", "dog"]))
    path = tmp_path / "last.pth"
    torch.save(dict(meta=meta, state_dict=MODELS.build(cfg.model).state_dict()), path)
    return path


def test_the_file_is_compared_with_pytorch(checkpoint, capsys):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    assert main([str(checkpoint), "--cfg-options", "model.score_thresh=0.0"]) == 0
    text = capsys.readouterr().out
    assert f"{checkpoint.with_suffix('.onnx')}: 0." in text and "opset 17" in text
    assert "on a test pattern, 320 x 240 pixels: PyTorch finds" in text


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_line(package, checkpoint, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", sys.modules.get("onnx", object()))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as info:
        main([str(checkpoint)])
    assert info.value.code == 2
    error = f"error: an export to ONNX needs {package}: pip install 'det-losses[export]'\n"
    assert capsys.readouterr().err == error
