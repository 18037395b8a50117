"""The device that models run on."""

import re

import torch
from mmengine.device import get_device
from mmengine.device import utils as mmengine_device

from det_losses.errors import InputError

_DEFAULT = mmengine_device.DEVICE
_given: str | None = None  # as the command line named it


def use_device(name: str | None) -> None:
    """Run the models of this process on a device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    None is mmengine's choice: a GPU, if there is one.

    mmengine moves each model to the device of ``get_device()``, which it chooses at import and has
    no function to change. A GPU becomes torch's current one, which the name ``"cuda"`` stands for.

    Raises:
        InputError: no such device.
    """
    global _given
    if name is None:
        mmengine_device.DEVICE, _given = _DEFAULT, None
        return
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if not found:
        raise InputError(f"--device {name}: expected cpu, cuda or cuda:N, N from 0")
    if name != "cpu":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(found.group(1) or 0)
        if index >= count:
            known = ", ".join(f"cuda:{number}" for number in range(count))
            raise InputError(f"--device {name}: torch finds {known or 'no GPU'}")
        torch.cuda.set_device(index)
    mmengine_device.DEVICE = name.partition(":")[0]
    _given = name


def device_options() -> list[str]:
    """Return the options with which another process runs on the same device."""
    return [] if _given is None else ["--device", _given]


def uses_cuda() -> bool:
    """Return whether models run on a GPU of CUDA."""
    return get_device() == "cuda"
