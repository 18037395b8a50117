"""The weights that a training starts from: one config key, pinned by a hash in a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import nn

from det_losses.errors import InputError, located
from det_losses.files import file_hash
from det_losses.models.detector import Detector
from det_losses.models.weight_files import weights_file
from det_losses.models.weights import describe_loaded
from det_losses.registry import MODELS, find


def use_weights(cfg: Config, source: str) -> None:
    """Start from a file or from named weights (``--weights-from``); sets ``model.weights``.

    Raises:
        MissingFileError: no such file, or the named weights cannot be downloaded.
        InputError: the config's model is not a detector of this package.
    """
    if not _is_ours(cfg):
        raise InputError(
            f"--weights-from: {cfg.model.get('type')} is not a detector of this package; set "
            "load_from"
        )
    with located("--weights-from"):
        file = weights_file(source)
    cfg.load_from = None
    cfg.model.weights = str(file.absolute()) if Path(source).expanduser().is_file() else source


def take_load_from(cfg: Config) -> None:
    """Make a ``load_from`` from which training starts the model's ``weights``.

    So there is one way to start from weights. It is not done for a resumed training, which needs
    the whole checkpoint, nor for a model of another package.
    """
    load_from = cfg.get("load_from")
    if load_from and not cfg.get("resume") and "://" not in load_from and _is_ours(cfg):
        cfg.model.weights, cfg.load_from = load_from, None


def pin_weights(cfg: Config) -> None:
    """Store the SHA-256 of the file of ``model.weights``, so that no run starts from another one.

    Args:
        cfg: the config, changed in place.

    Raises:
        MissingFileError: no such file, or the named weights cannot be downloaded.
    """
    take_load_from(cfg)
    weights = cfg.model.get("weights")
    if not weights or not _is_ours(cfg):
        return
    entries = {"file": weights} if isinstance(weights, str) else dict(weights)
    with located("model"):
        file = weights_file(str(entries.get("file")))
    if Path(str(entries["file"])).expanduser().is_file():
        entries["file"] = str(file.expanduser().absolute())
    cfg.model.weights = ConfigDict(entries, sha256=file_hash(file))


def name_classes(cfg: Config, classes: Sequence[str]) -> None:
    """Tell the model's ``weights`` the data's classes, whose rows of a class layer are kept."""
    weights = cfg.model.get("weights")
    if weights and _is_ours(cfg):
        entries = {"file": weights} if isinstance(weights, str) else dict(weights)
        cfg.model.weights = ConfigDict({"classes": list(classes), **entries})


def loaded_weights(model: nn.Module) -> dict[str, Any] | None:
    """Return the record of the weights that a model started from; None without any.

    Args:
        model: the model, or its DDP wrapper.
    """
    return getattr(getattr(model, "module", model), "loaded", None)


def loaded_lines(model: nn.Module) -> list[tuple[bool, str]]:
    """Return the lines about loaded weights, each with whether it is a warning."""
    record = loaded_weights(model)
    return describe_loaded(record) if record else []


def _is_ours(cfg: Mapping[str, Any]) -> bool:
    kind = cfg["model"].get("type")
    found = find(MODELS, kind) if isinstance(kind, str) else kind
    return isinstance(found, type) and issubclass(found, Detector)
