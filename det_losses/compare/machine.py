"""Versions and hardware, for the record."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import det_losses

_PACKAGES = ("torch", "torchvision", "mmengine-lite", "hotcoco")


def describe_machine() -> dict[str, Any]:
    """Return ``versions`` and ``hardware``."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    versions = {"det_losses": det_losses.__version__, "python": platform.python_version()}
    return {
        "versions": versions | {package: _version(package) for package in _PACKAGES},
        "hardware": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu_name(),
            "threads": torch.get_num_threads(),
            "gpus": gpus,
            "memory": "peak memory is what was allocated on the GPU"
            if gpus
            else "peak memory is the resident size of the training process",
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:  # PackageNotFoundError is one: another fork of the package
        return "unknown"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
