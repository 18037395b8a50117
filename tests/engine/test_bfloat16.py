"""Mixed precision on a CPU."""

import re
from pathlib import Path

import pytest

from det_losses.engine.bfloat16 import cpu_has_bfloat16

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUINFO.is_file(), reason="not on Linux")
def test_the_kernel_names_the_same_instructions():
    named = re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", CPUINFO.read_text())
    assert cpu_has_bfloat16() == bool(named)
