"""What makes a training on a CPU faster: freed memory is kept, and oneDNN convolves."""

import ctypes
import os

import torch
from mmengine.device import get_device
from torch import nn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees for its next step.

    glibc returns large blocks to the system, which then has to clear new pages for the tensors of
    each step. Settings of ``malloc`` in the environment take precedence: ``MALLOC_...``,
    ``GLIBC_TUNABLES``. Other C libraries and allocators are left alone.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; TypeError: on Windows
        return
    # Older versions refuse more than 32 MiB. Without this threshold, the other call would fix it at
    # 128 KiB, where it starts before it adapts to the blocks of the program.
    if mallopt(_M_MMAP_THRESHOLD, 2**30) or mallopt(_M_MMAP_THRESHOLD, 2**25):
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def convolve_with_onednn(model: nn.Module) -> None:
    """Let oneDNN compute convolutions with 1 x 1 kernels on a CPU of AMD with one thread.

    For less than 16 images, torch leaves them to the matrix product of MKL, which is slow there,
    unless they are strided or dilated. So they are declared as dilated, which has no effect on a
    kernel of one element. With several threads, torch itself chooses oneDNN. A batch of one small
    image is slower.
    """
    if get_device() != "cpu" or torch.get_num_threads() > 1 or not mkl_is_slow():
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
            module.dilation = (2, 2)


def mkl_is_slow() -> bool:
    """Return whether torch has oneDNN on a CPU of AMD, where it is faster than MKL."""
    try:
        import llvmlite.binding as llvm
    except ImportError:
        return False
    return torch.backends.mkldnn.is_available() and llvm.get_host_cpu_name().startswith("znver")
