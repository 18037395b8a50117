"""Memory that a process keeps, and convolutions by oneDNN."""

import copy
import platform
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from torch import nn

from det_losses.engine import cpu
from det_losses.engine.build import build_runner
from det_losses.engine.device import use_device

PAGES = """
import ctypes, resource
import torch
from det_losses.engine.cpu import keep_freed_memory
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages: PR_SET_THP_DISABLE
{}
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB, 16,384 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
@pytest.mark.parametrize(
    ("call", "environment", "is_kept"),
    [
        ("keep_freed_memory()", {}, True),
        ("", {}, False),
        ("keep_freed_memory()", {"MALLOC_ARENA_MAX": "4"}, False),
    ],
    ids=["kept", "torch's own", "settings of the user"],
)
def test_the_pages_of_a_tensor_are_used_again(call, environment, is_kept, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    process = subprocess.run(
        [sys.executable, "-c", PAGES.format(call)], capture_output=True, text=True, check=True
    )
    new_pages = int(process.stdout)
    assert new_pages < 100 if is_kept else new_pages > 10_000


@pytest.fixture
def one_thread():
    """Use one thread of the CPU, also where there is a GPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    use_device("cpu")
    yield
    use_device(None)
    torch.set_num_threads(before)


needs_amd = pytest.mark.skipif(not cpu.mkl_is_slow(), reason="only on a CPU of AMD")


def kernels(model, images):
    """Return the names of the operations of a forward and backward pass."""
    with torch.profiler.profile() as profile:
        model(images).sum().backward()
    return {event.key for event in profile.key_averages()}


@needs_amd
def test_convolutions_of_single_pixels_are_those_of_onednn_and_have_the_same_result(one_thread):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(8, 40, 1), nn.Conv2d(40, 8, 3, padding=1), nn.Conv2d(8, 6, 1))
    images = torch.randn(4, 8, 9, 7)
    changed = copy.deepcopy(plain)
    cpu.convolve_with_onednn(changed)
    assert "aten::_slow_conv2d_forward" in kernels(plain, images)
    assert "aten::_slow_conv2d_forward" not in kernels(changed, images)
    results = []
    for model in (plain, changed):
        results.append(
            [model(images), *torch.autograd.grad(model(images).sum(), model.parameters())]
        )
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-4)


@needs_amd
def test_a_training_uses_onednn_with_one_thread_only(tiny_config, tmp_path, one_thread):
    cfg = Config.fromfile(tiny_config)
    cfg.work_dir = str(tmp_path)

    def dilated(train=True):
        model = build_runner(cfg, train=train).model
        convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
        return {each.dilation for each in convs}

    assert dilated() == {(2, 2)}
    assert dilated(train=False) == {(1, 1)}
    torch.set_num_threads(2)
    assert dilated() == {(1, 1)}
