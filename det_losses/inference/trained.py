"""A detector and all that its predictions need, from a checkpoint alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from det_losses.data.transforms import Transform, build_transforms
from det_losses.engine.checkpoint import read_checkpoint, state_dict_of
from det_losses.engine.checks import config_errors
from det_losses.engine.config import apply_options, read_config, transforms_of_test
from det_losses.engine.config_text import parse_config_text
from det_losses.errors import InputError, MissingFileError, counted, located, one_line
from det_losses.models.weight_files import weights_skipped
from det_losses.registry import MODELS, find

Pathlike = str | Path


@dataclass(frozen=True)
class TrainedDetector:
    """A detector in evaluation mode with the names of its classes.

    Attributes:
        model: called as ``model(images, mode="predict")``.
        classes: name of each label.
        category_ids: id of each label in the annotation file of the training data.
        transforms: those that the config applies to test images.
        device: where the model is.
        notes: what had to be assumed, as sentences.
    """

    model: nn.Module
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    transforms: list[Transform]
    device: torch.device
    notes: tuple[str, ...] = ()


def load_detector(
    checkpoint: Pathlike,
    *,
    config: Pathlike | None = None,
    options: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    device: str | torch.device | None = None,
) -> TrainedDetector:
    """Load the detector of a checkpoint, with the config and the classes that are stored in it.

    Neither training data nor pretrained weights are read, and the network is not used.

    Args:
        checkpoint: a file that a training has written; a file with weights only needs ``config``.
        config: replaces the stored config: a file, or the name of a shipped config.
        options: changes of the config, as ``"model.min_size=640"``.
        classes: names by label; they replace the stored ones.
        device: such as ``"cuda:1"``; None: a GPU if there is one, else the CPU.

    Raises:
        MissingFileError: no such checkpoint or config.
        InputError: the file is not a checkpoint, has no config, or does not fit the config or the
            number of classes; or there is no such device.
        NotRegisteredError: a part of the model is not registered.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise MissingFileError(f"checkpoint {path}: no such file")
    content = read_checkpoint(path)
    meta = content.get("meta") or {}
    state = state_dict_of(content)
    cfg = _config(path, meta, config)
    apply_options(cfg, list(options))
    names, ids, notes = _classes(path, cfg, meta, state, classes)
    cfg.model.num_classes = len(names)
    if cfg.model.get("class_to_channel") == "category_id":
        cfg.model.class_to_channel = list(ids)
    model = _build(cfg)
    _load(model, state, path, count=len(names))
    with located("test_dataloader.dataset"):
        transforms = build_transforms(transforms_of_test(cfg))
    where = _device(device)
    return TrainedDetector(model.eval().to(where), names, ids, transforms, where, notes)


def _config(path: Path, meta: Mapping[str, Any], config: Pathlike | None) -> Config:
    if config is not None:
        return read_config(str(config))
    text = meta.get("cfg")
    if not isinstance(text, str) or not text.strip():
        raise InputError(
            f"{path} contains weights, but no config; give the config that it was trained with "
            "(--config)"
        )
    with located(str(path)):
        cfg = parse_config_text(text)
        if not isinstance(cfg.get("model"), Mapping):
            raise InputError("its config has no `model`")
    modules = (cfg.get("custom_imports") or {}).get("imports") or []  # own losses and backbones
    try:
        import_modules_from_strings(modules)
    except Exception as error:
        raise InputError(
            f"{path}: its config imports {modules}, which fails here ({one_line(error)}); add the "
            "folder of that module to PYTHONPATH"
        ) from error
    return cfg


def _classes(
    path: Path,
    cfg: Config,
    meta: Mapping[str, Any],
    state: Mapping[str, Tensor],
    given: Sequence[str] | None,
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """Return names and ids of the classes, and a note on what was assumed."""
    stored = meta.get("dataset_meta") or {}
    names = given or stored.get("classes")
    notes = ()
    if not names:
        count = cfg.model.get("num_classes") or _count_classes(cfg, state)
        names = [f"class_{label}" for label in range(count)]
        notes = (
            f"{path} does not contain the names of its {counted(count, 'class')}: they are "
            f"called class_0 to class_{count - 1}; --classes gives them names",
        )
    expected = len(stored.get("classes") or ()) or cfg.model.get("num_classes")
    if expected not in (None, len(names)):
        raise InputError(
            f"{path} has {counted(expected, 'class')}, but {counted(len(names), 'name')} given"
        )
    ids = stored.get("category_ids")
    if ids is None or len(ids) != len(names):
        ids = range(1, len(names) + 1)
    return tuple(names), tuple(int(each) for each in ids), notes


def _count_classes(cfg: Config, state: Mapping[str, Tensor]) -> int:
    """Return the number of classes from the size of the class layer.

    That layer is the first whose number of rows differs between models of one and of two classes;
    the number is linear in that of the classes.
    """
    shapes = []
    for count in (1, 2):
        trial = Config(dict(model={**cfg.model, "num_classes": count}))
        shapes.append({k: v.shape for k, v in _build(trial).state_dict().items()})
    one, two = shapes
    name = next((k for k in one if k in state and one[k] != two[k]), None)
    if name is None:
        raise InputError("the number of classes cannot be read from the weights; give --classes")
    rows, per_class = one[name][0], two[name][0] - one[name][0]
    return 1 + (len(state[name]) - rows) // per_class


def _build(cfg: Config) -> nn.Module:
    with located("model"):
        if not isinstance(cfg.model.get("type"), str):
            raise InputError("has no `type`")
        detector = find(MODELS, cfg.model.type)
    if not (isinstance(detector, type) and issubclass(detector, nn.Module)):
        raise InputError(f"model.type: {cfg.model.type!r} is not a model")
    with config_errors(cfg), weights_skipped():
        return MODELS.build(cfg.model)


def _load(model: nn.Module, state: Mapping[str, Tensor], path: Path, count: int) -> None:
    """Load all weights but the state of losses, which predictions do not need."""
    own = model.state_dict()
    for name, value in own.items():
        if name.startswith("losses."):
            continue
        found = state.get(name)
        if found is None or found.shape != value.shape:
            shape = "is missing" if found is None else f"has the shape {list(found.shape)}"
            raise InputError(
                f"checkpoint {path} does not fit its config with {counted(count, 'class')}: "
                f"{name} {shape}, expected {list(value.shape)}"
            )
    further = [name for name in state if name not in own and not name.startswith("losses.")]
    if further:
        raise InputError(
            f"checkpoint {path} does not fit its config: the model has no {further[0]}"
            f"{f' and {len(further) - 1} others' if len(further) > 1 else ''}"
        )
    weights = {name: value for name, value in state.items() if not name.startswith("losses.")}
    model.load_state_dict(weights, strict=False)


def _device(device: str | torch.device | None) -> torch.device:
    where = get_device() if device is None else device
    try:
        where = torch.device(where)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"--device {device}: this device cannot be used ({reason})") from error
    return where
