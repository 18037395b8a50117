"""Collate samples of different sizes, and pass a batch between processes as one block of memory."""

import functools
import io
import logging
import pickle
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from det_losses.registry import FUNCTIONS

_ALIGNMENT = 16  # bytes, at least the size of every dtype

Layout = list[tuple[int, torch.dtype, torch.Size]]  # offset, dtype and shape of each tensor


class Batch(dict):
    """A dict that a worker process sends with all its tensors in one block of shared memory.

    Otherwise each tensor would be a block with a file descriptor of its own, and a few batches of
    small images would exceed the usual limit of 1024 descriptors. It is received as a plain dict
    whose tensors are views of the block.
    """


@FUNCTIONS.register_module()
def detection_collate(samples: Sequence[tuple[Tensor, dict[str, Any]]]) -> Batch:
    """Collate samples ``(image, target)`` to a batch ``dict(images=[...], targets=[...])``.

    Images differ in size, so they are not stacked.
    """
    return Batch(images=[image for image, _ in samples], targets=[target for _, target in samples])


class _Pickler(pickle.Pickler):
    """Pickles everything but tensors, which are collected in ``tensors``."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []

    def persistent_id(self, value: Any) -> int | None:
        plain = type(value) is Tensor and value.layout == torch.strided
        if not plain or value.device.type != "cpu" or value.requires_grad:
            return None
        self.tensors.append(value)
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: Sequence[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, number: int) -> Tensor:
        return self._tensors[number]


def _pack(content: dict[str, Any]) -> tuple[bytes, Layout, Tensor | np.ndarray]:
    """Return a batch without its tensors, their layout, and a block with all of them.

    The block is a tensor in shared memory. Where none is left, it is an array, which is sent as
    bytes: this runs in a thread of the worker's queue, which would lose the batch after an error.
    """
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(content)
    layout, end = [], 0
    for tensor in pickler.tensors:
        layout.append((end, tensor.dtype, tensor.shape))
        end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    block = torch.empty(0, dtype=torch.uint8)
    try:
        block.set_(torch.UntypedStorage._new_shared(max(end, 1)))
        is_shared = True
    except RuntimeError:
        block.set_(torch.UntypedStorage(max(end, 1)))
        is_shared = False
    for view, tensor in zip(_views(block, layout), pickler.tensors, strict=True):
        view.copy_(tensor)
    return file.getvalue(), layout, block if is_shared else block.numpy()


def _unpack(pickled: bytes, layout: Layout, block: Tensor | np.ndarray) -> dict[str, Any]:
    if isinstance(block, np.ndarray):
        _warn_once()
        block = torch.from_numpy(block.copy())  # aligned, and writable
    return _Unpickler(io.BytesIO(pickled), _views(block, layout)).load()


@functools.cache
def _warn_once() -> None:
    print_log(
        "A worker of a data loader cannot allocate shared memory, so it sends batches as bytes, "
        "which is slower. Enlarge /dev/shm (docker run --shm-size=1g), or use fewer num_workers",
        logger="current",
        level=logging.WARNING,
    )


def _views(block: Tensor, layout: Layout) -> list[Tensor]:
    views = []
    for offset, dtype, shape in layout:
        end = offset + shape.numel() * dtype.itemsize
        views.append(block[offset:end].view(dtype).view(shape))
    return views


ForkingPickler.register(Batch, lambda batch: (_unpack, _pack(dict(batch))))
