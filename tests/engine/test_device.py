"""The device of the command line, with GPUs that are not there."""

import pytest
import torch
from mmengine.device import get_device
from mmengine.device import utils as mmengine_device

from det_losses.engine import device


@pytest.fixture
def two_gpus(monkeypatch):
    """Let torch find two GPUs; return the calls of ``set_device``."""
    chosen = []
    monkeypatch.setattr(mmengine_device, "DEVICE", "cuda")
    monkeypatch.setattr(device, "_given", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.parametrize(
    ("name", "index", "kind"), [("cuda:1", [1], "cuda"), ("cuda", [0], "cuda"), ("cpu", [], "cpu")]
)
def test_models_run_on_the_named_device_here_and_in_further_processes(two_gpus, name, index, kind):
    assert device.device_options() == []
    device.use_device(name)
    assert two_gpus == index
    assert get_device() == kind  # to which mmengine moves a model
    assert device.uses_cuda() is (kind == "cuda")
    assert device.device_options() == ["--device", name]


@pytest.mark.parametrize("name", ["cuda:2", "gpu", "cuda:", "cuda:-1", "1", ""])
def test_a_device_that_is_not_there_is_an_error(two_gpus, name):
    with pytest.raises(
        ValueError, match=rf"^--device {name}: (expected|torch finds cuda:0, cuda:1)"
    ):
        device.use_device(name)
    assert (two_gpus, get_device(), device.device_options()) == ([], "cuda", [])


def test_without_a_gpu_only_the_cpu_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device cuda: torch finds no GPU"):
        device.use_device("cuda")
