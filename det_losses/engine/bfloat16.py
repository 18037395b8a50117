"""Mixed precision with bfloat16, also on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from det_losses.registry import OPTIM_WRAPPERS

# LLVM's names of the instructions of x86 and ARM.
_INSTRUCTIONS = ("avx512bf16", "amx-bf16", "bf16")


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Trains under autocast to bfloat16; weights, losses and evaluation stay in float32.

    bfloat16 has the exponents of float32, so that no loss scale is needed. mmengine's
    AmpOptimWrapper, which has one, refuses a CPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass under autocast."""
        with super().optim_context(model), torch.autocast(get_device(), torch.bfloat16):
            yield


def cpu_has_bfloat16() -> bool:
    """Return whether the processor computes in bfloat16; torch emulates it elsewhere, slowly."""
    try:
        import llvmlite.binding as llvm

        features = llvm.get_host_cpu_features()
    except (ImportError, RuntimeError):  # RuntimeError: not known for this kind of processor
        return False
    return any(features.get(name) for name in _INSTRUCTIONS)
