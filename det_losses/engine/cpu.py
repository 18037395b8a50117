"""What makes a training on a CPU faster: freed memory is kept, and oneDNN convolves."""

import ctypes
import os

import torch
from mmengine.device import get_device
from torch import nn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, up to 2 GiB, for its next step.

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
    mallopt(_M_MMAP_THRESHOLD, 2**30)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def convolve_with_onednn(model: nn.Module) -> None:
    """Let oneDNN compute convolutions with 1 x 1 kernels on an x86 CPU with one thread.

    For less than 16 images, torch leaves them to the matrix product of its BLAS, MKL, unless they
    are strided or dilated. So they are declared as dilated, which has no effect on a kernel of one
    element. With several threads, torch itself chooses oneDNN.
    """
    is_x86 = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    if get_device() != "cpu" or torch.get_num_threads() > 1 or not is_x86:
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
            module.dilation = (2, 2)
