"""Checkpoints: written completely or not at all, safe to load, verified before they are used."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import hooks
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, load_state_dict
from torch import Tensor, nn

from det_losses.engine.checks import join_names
from det_losses.errors import InputError, InputTypeError, one_line
from det_losses.files import write_text
from det_losses.models.weight_files import read_checkpoint
from det_losses.registry import HOOKS

_PLAIN = (torch.Tensor, str, bytes, bool, int, float, complex, type(None))
POINTER_FILE = "last_checkpoint"  # written by mmengine: the newest checkpoint
_RESUMED = ("meta", "optimizer", "message_hub", "state_dict")  # what a resumed run needs


@HOOKS.register_module()
class SafeCheckpointHook(Hook):
    """Store only tensors and plain Python values, so that checkpoints can be loaded safely.

    mmengine 0.10 puts HistoryBuffers and numpy scalars into a checkpoint. ``torch.load`` rejects
    them by default since torch 2.6, so no run could be resumed. This hook saves a HistoryBuffer as
    a dict of two tensors and restores it after loading. It saves numpy scalars as Python numbers
    and arrays as tensors, and leaves out the functions in the state of a schedule. State dicts are
    not changed.
    """

    priority = "LOWEST"  # after all hooks that add entries to a checkpoint

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Convert the entries to tensors and plain values.

        Raises:
            InputTypeError: an entry has a type that safe loading rejects.
        """
        for key, value in checkpoint.items():
            if key == "param_schedulers":
                value = _without_functions(value)
            if not key.endswith("state_dict"):
                checkpoint[key] = _plain(value, key)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore the stored histories as HistoryBuffers."""
        scalars = checkpoint.get("message_hub", {}).get("log_scalars", {})
        for key, value in scalars.items():
            if isinstance(value, dict):
                scalars[key] = _to_history(value)


@HOOKS.register_module()
class CheckpointHook(hooks.CheckpointHook):
    """mmengine's CheckpointHook for directories that are copied or moved.

    ``last_checkpoint`` contains a path relative to the work_dir. A resumed run looks for its best
    checkpoint in its own directory, and not where the run was started.
    """

    def before_train(self, runner: Runner) -> None:
        """Locate the best checkpoint of a resumed run in this run's directory."""
        super().before_train(runner)
        if getattr(self, "best_ckpt_path", None):
            self.best_ckpt_path = self._in_out_dir(self.best_ckpt_path)
        for key, path in getattr(self, "best_ckpt_path_dict", {}).items():
            self.best_ckpt_path_dict[key] = path and self._in_out_dir(path)

    def _in_out_dir(self, path: str) -> str:
        return self.file_backend.join_path(self.out_dir, os.path.basename(path))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        pointer = Path(runner.work_dir, POINTER_FILE)
        if pointer.is_file() and "://" not in self.last_ckpt:  # rank 0, local directory
            write_text(pointer, os.path.relpath(self.last_ckpt, runner.work_dir))


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


def _without_functions(schedulers: Any) -> Any:
    """Return the states of schedules without functions, which a new schedule has anyway."""
    if isinstance(schedulers, Mapping):
        return {name: _without_functions(each) for name, each in schedulers.items()}
    return [{k: v for k, v in state.items() if not callable(v)} for state in schedulers]


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file, which becomes ``path`` when it is complete.

    Raises:
        InputError: the file cannot be written, for example because the disk is full.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"cannot write checkpoint {path}: {error.strerror or error}") from error


def read_meta(path: Path) -> dict[str, Any]:
    """Return the ``meta`` of a checkpoint, as :func:`read_checkpoint` does; ``{}`` without one."""
    return read_checkpoint(path).get("meta") or {}


def newest_checkpoint(cfg: Config) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint from which the run in ``cfg.work_dir`` can be resumed.

    It is found by looking into the directory, newest number in the name first. A file that is
    damaged is skipped; one with weights only (such as ``best_*.pth``) is none.

    Returns:
        The file, None without one, and a message if a newer one could not be used.
    """
    skipped = []
    missing = _missing_pointed(Path(cfg.work_dir))
    if missing:
        skipped.append(f"{missing} is missing")
    for path in sorted(checkpoints(cfg), key=_age, reverse=True):
        try:
            if all(key in read_checkpoint(path) for key in _RESUMED):
                return path, _notes(skipped, f"resuming from {path.name}")
        except InputError as error:
            skipped.append(str(error))
    return None, _notes(skipped, "training starts from the beginning")


def _notes(skipped: list[str], outcome: str) -> list[str]:
    return [f"{'; '.join(skipped)}; {outcome}"] if skipped else []


def _missing_pointed(work_dir: Path) -> str | None:
    """Return the name of the checkpoint in ``last_checkpoint`` if it does not exist.

    An absolute path, as mmengine writes it, may be that of the directory this one was copied from.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError, ValueError):
        pointed = (work_dir / POINTER_FILE).read_text(encoding="utf-8").strip()
        path = Path(pointed)
        here = work_dir / (path.name if path.is_absolute() else path)
        if path.suffix == ".pth" and not here.exists() and not path.exists():
            return path.name
    return None


def checkpoints(cfg: Config) -> list[Path]:
    """Return all checkpoint files of the run in ``cfg.work_dir``."""
    folder = Path(cfg.work_dir)
    out_dir = ((cfg.get("default_hooks") or {}).get("checkpoint") or {}).get("out_dir")
    if out_dir and "://" not in out_dir and Path(out_dir).absolute() != folder.absolute():
        folder = Path(out_dir) / folder.absolute().name  # as mmengine's CheckpointHook
    return list(folder.glob("*.pth"))


def _age(path: Path) -> tuple[int, float]:
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else -1, path.stat().st_mtime


def check_resumable(path: Path) -> None:
    """Check that a run can be resumed from a file.

    Raises:
        InputError: it is not a checkpoint, or it has weights only.
    """
    found = read_checkpoint(path)
    missing = [key for key in _RESUMED if key not in found]
    if missing:
        raise InputError(
            f"--resume {path}: the file has no {' and no '.join(missing)}, so no run can be "
            f"resumed from it; to start a new run from its weights, use --weights-from {path}"
        )


def _fetch_checkpoint(url: str) -> dict[str, Any]:
    """Return the content of a checkpoint at an address; mmengine keeps what it downloads.

    Raises:
        InputError: it cannot be loaded.
    """
    try:
        found = CheckpointLoader.load_checkpoint(url, map_location="cpu", logger="silent")
    except Exception as error:  # each kind of address has its own client with its own errors
        reason = f"{type(error).__name__}: {one_line(error, 120)}"
        raise InputError(f"load_from={url}: cannot be loaded ({reason})") from error
    return found if isinstance(found, dict) else {}


def check_weights(model: nn.Module, path: str | Path, *, whole: bool = False) -> None:
    """Check that a file has weights for at least a part of a model.

    Args:
        model: the model, or its DDP wrapper.
        path: the file, or its address.
        whole: require all weights, apart from the state of losses.

    Raises:
        InputError: it is not a checkpoint, or no tensor has the name and shape of one in the model.
    """
    is_remote = "://" in str(path)
    content = _fetch_checkpoint(path) if is_remote else read_checkpoint(Path(path).expanduser())
    found = state_dict_of(content)
    own = _unwrapped(model).state_dict()
    fits = {n: n in found and found[n].shape == value.shape for n, value in own.items()}
    unfit = next((n for n, fit in fits.items() if not fit and not n.startswith("losses.")), None)
    if whole and unfit:
        raise InputError(
            f"checkpoint {path} does not fit the config's model: it has no {unfit!r} of its shape; "
            "give the config that it was trained with"
        )
    if any(fits.values()) or not own:
        return
    first = next(iter(found), None)
    content = f"it has {first!r}" if first else "it has no tensors"
    raise InputError(
        f"load_from={path}: no tensor of the file has the name and shape of one in the model "
        f"({content}, the model has {next(iter(own), None)!r}); rename its keys"
    )


def state_dict_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, or those of a file that has only weights."""
    state = checkpoint.get("state_dict", checkpoint)
    state = state if isinstance(state, Mapping) else {}
    return {
        name.removeprefix("module."): value
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def check_tested(runner: Runner, path: Path) -> None:
    """Check that a checkpoint has all weights of the model, trained on the same classes.

    The state of losses is not needed.

    Raises:
        InputError: the file is not a checkpoint, or it has a different model or different classes.
    """
    checkpoint = read_checkpoint(path)
    trained = ((checkpoint.get("meta") or {}).get("dataset_meta") or {}).get("classes")
    classes = runner.test_loop.dataloader.dataset.metainfo["classes"]
    if trained is not None and list(trained) != list(classes):
        raise InputError(
            f"checkpoint {path} was trained on the classes {join_names(trained, limit=6)}, "
            f"but the data has {join_names(classes, limit=6)}"
        )
    model = _unwrapped(runner.model)
    found = {k: v for k, v in state_dict_of(checkpoint).items() if not k.startswith("losses.")}
    losses = {k: v for k, v in model.state_dict().items() if k.startswith("losses.")}
    try:
        load_state_dict(model, {**found, **losses}, strict=True)
    except RuntimeError as error:
        # mmengine lists all mismatches, one per line; show the first.
        first = next(filter(None, str(error).splitlines()[1:]), str(error))
        short = first if len(first) < 200 else f"{first[:200]}..."
        raise InputError(f"checkpoint {path} does not fit the config's model: {short}") from error


def _unwrapped(model: nn.Module) -> nn.Module:
    return getattr(model, "module", model)
