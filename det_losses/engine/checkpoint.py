"""Checkpoints that ``torch.load(weights_only=True)`` can read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

from det_losses.engine.checks import join_names
from det_losses.errors import InputError, InputTypeError
from det_losses.registry import HOOKS

_PLAIN = (torch.Tensor, str, bytes, bool, int, float, complex, type(None))


@HOOKS.register_module()
class SafeCheckpointHook(Hook):
    """Store only tensors and plain Python values, so that checkpoints can be loaded safely.

    mmengine 0.10 puts HistoryBuffers and numpy scalars into a checkpoint. ``torch.load`` rejects
    them by default since torch 2.6, so no run could be resumed. This hook saves a HistoryBuffer as
    a dict of two tensors and restores it after loading. It saves numpy scalars as Python numbers
    and arrays as tensors. State dicts are not changed.
    """

    priority = "LOWEST"  # after all hooks that add entries to a checkpoint

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Convert the entries to tensors and plain values.

        Raises:
            InputTypeError: an entry has a type that safe loading rejects.
        """
        for key, value in checkpoint.items():
            if not key.endswith("state_dict"):
                checkpoint[key] = _plain(value, key)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore the stored histories as HistoryBuffers."""
        scalars = checkpoint.get("message_hub", {}).get("log_scalars", {})
        for key, value in scalars.items():
            if isinstance(value, dict):
                scalars[key] = _to_history(value)


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, np.generic):  # first: numpy.float64 is a Python float too
        return value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, HistoryBuffer):
        logs, counts = value.data
        return {
            "log_history": torch.from_numpy(logs.copy()),
            "count_history": torch.from_numpy(counts.copy()),
            "max_length": value.max_length,
        }
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        return {_plain(k, place): _plain(v, f"{place}[{k!r}]") for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(item, f"{place}[{i}]") for i, item in enumerate(value))
    if isinstance(value, (list, set, frozenset)):
        return [_plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
    raise InputTypeError(
        f"checkpoint entry {place} is a {type(value).__name__}, which safe loading "
        "(torch.load with weights_only=True) rejects; store tensors and plain Python values"
    )


def _to_history(stored: dict[str, Any]) -> HistoryBuffer:
    return HistoryBuffer(
        stored["log_history"].cpu().numpy(),
        stored["count_history"].cpu().numpy(),
        stored["max_length"],
    )


def read_meta(path: Path) -> dict[str, Any]:
    """Return the ``meta`` of a checkpoint; an empty dict if it has none.

    Raises:
        InputError: the file is not a checkpoint.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True).get("meta", {})
    except Exception as error:
        raise InputError(
            f"{path} is not a checkpoint, or it contains more than tensors and plain values "
            f"({type(error).__name__} from torch.load with weights_only=True)"
        ) from error


def load_checkpoint(runner: Runner, path: Path) -> None:
    """Load a checkpoint strictly, and check that it was trained on the same classes.

    Raises:
        InputError: the file is not a checkpoint, or it has a different model or different classes.
    """
    trained = (read_meta(path).get("dataset_meta") or {}).get("classes")
    classes = runner.test_loop.dataloader.dataset.metainfo["classes"]
    if trained is not None and list(trained) != list(classes):
        raise InputError(
            f"checkpoint {path} was trained on the classes {join_names(trained, limit=6)}, "
            f"but the data has {join_names(classes, limit=6)}"
        )
    try:
        runner.load_checkpoint(str(path), map_location="cpu", strict=True)
    except RuntimeError as error:
        # mmengine lists all mismatches, one per line; show the first.
        first = next(filter(None, str(error).splitlines()[1:]), str(error))
        short = first if len(first) < 200 else f"{first[:200]}..."
        raise InputError(f"checkpoint {path} does not fit the config's model: {short}") from error
