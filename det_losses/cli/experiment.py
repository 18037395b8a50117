"""From the command line to the config of an experiment."""

import argparse
import difflib
import inspect
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from det_losses.errors import InputError
from det_losses.losses.core.text import parse_value
from det_losses.paths import find_config

_LOADERS = {"train": ("train_dataloader",), "val": ("val_dataloader", "test_dataloader")}
_KEPT = ("transforms", "test_mode", "keep_negatives")


def load_experiment(args: argparse.Namespace) -> Config:
    """Return the config that a tool's arguments describe: file, own data, --amp, --cfg-options.

    Raises:
        MissingFileError: no such config.
        InputError: the file cannot be read, or an option does not fit.
    """
    cfg = read_config(args.config)
    for split in ("train", "val"):
        use_own_data(
            cfg, split, getattr(args, f"{split}_ann", None), getattr(args, f"{split}_images", None)
        )
    if getattr(args, "amp", False):
        use_amp(cfg)
    apply_options(cfg, args.cfg_options)
    return cfg


def read_config(name: str) -> Config:
    """Read a config by path or shipped name.

    Raises:
        MissingFileError: no such config.
        InputError: it is no Python, fails when run, or describes no experiment.
    """
    path = find_config(name)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise InputError(f"config {path}: {type(error).__name__}: {error}") from error
    for key in ("model", "train_dataloader", "val_dataloader", "val_evaluator"):
        if key not in cfg:
            raise InputError(f"config {path} has no `{key}`: it is no whole experiment")
    return cfg


def apply_options(cfg: Config, options: list[str]) -> None:
    """Merge ``key=value`` texts into the config.

    Raises:
        InputError: no ``=``, or the first part of the key is nothing that a config has.
    """
    known = {*cfg, *inspect.signature(Runner).parameters}
    merged: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise InputError(f"--cfg-options: expected KEY=VALUE, got {option!r}")
        first = key.split(".")[0]
        if first not in known:
            near = difflib.get_close_matches(first, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(sorted(cfg))}."
            raise InputError(f"--cfg-options {option}: the config has no {first!r}. {hint}")
        merged[key] = parse_value(value)
    try:
        cfg.merge_from_dict(merged)
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        raise InputError(f"--cfg-options {' '.join(options)}: {error}") from error


def use_own_data(cfg: Config, split: str, ann_file: str | None, image_dir: str | None) -> None:
    """Replace the dataset of ``"train"`` or of ``"val"`` (and test) by the user's own.

    Of the config's dataset only transforms, test_mode and keep_negatives stay: classes and number
    of images chosen for other data say nothing about these. ``--cfg-options
    train_dataloader.dataset.num_images=500`` takes a subset of them.

    Raises:
        InputError: one of the two is missing.
    """
    if ann_file is None and image_dir is None:
        return
    if ann_file is None or image_dir is None:
        given, missing = ("images", "ann") if ann_file is None else ("ann", "images")
        raise InputError(f"--{split}-{given} needs --{split}-{missing} beside it")
    for loader in _LOADERS[split]:
        if cfg.get(loader) is None:
            continue
        base = cfg[loader].dataset
        cfg[loader].dataset = ConfigDict(
            type="CocoDataset",
            ann_file=str(Path(ann_file).absolute()),
            image_dir=str(Path(image_dir).absolute()),
            **{key: base[key] for key in _KEPT if key in base},
        )


def use_amp(cfg: Config) -> None:
    """Turn the optimizer wrapper into mmengine's mixed-precision one with dynamic loss scale.

    Raises:
        InputError: the config has a wrapper of its own kind.
    """
    kind = cfg.optim_wrapper.get("type", "OptimWrapper")
    if kind not in ("OptimWrapper", "AmpOptimWrapper"):
        raise InputError(f"--amp: the config's optim_wrapper is {kind!r}, expected 'OptimWrapper'")
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.setdefault("loss_scale", "dynamic")
