"""From the options of a tool to a config."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from det_losses.engine import config
from det_losses.engine.device import use_device
from det_losses.engine.pretrained import use_weights
from det_losses.errors import InputError
from det_losses.registry import import_modules


def load_experiment(options: Any, cfg: Config | None = None) -> Config:
    """Return the config of CONFIG with all options applied: those of own data first.

    Args:
        options: the options of a tool as attributes; those that it lacks are not applied.
        cfg: a config to use instead of that of CONFIG.

    Raises:
        MissingFileError: no such config.
        InputError: the file cannot be read, or an option does not fit the config.
    """
    _check_folds(options)
    device = getattr(options, "device", None)
    if device not in (None, "cpu") and getattr(options, "launcher", "none") != "none":
        raise InputError(
            f"--device {device} is one GPU for all processes of --launcher {options.launcher}; "
            "select GPUs with the variable CUDA_VISIBLE_DEVICES"
        )
    use_device(device)
    modules = getattr(options, "modules", [])
    import_modules(modules)
    cfg = config.read_config(options.config) if cfg is None else cfg
    config.import_in_runs(cfg, modules)
    for split in ("train", "val"):
        ann_file, images = (getattr(options, f"{split}_{what}", None) for what in ("ann", "images"))
        config.use_own_data(cfg, split, ann_file, images)
    _check_both_splits(options, cfg)
    if getattr(options, "amp", False):
        config.use_amp(cfg)
    config.use_losses(cfg, getattr(options, "loss", []))
    config.apply_options(cfg, options.cfg_options)
    if getattr(options, "auto_scale_lr", False):
        config.use_auto_scale_lr(cfg)
    if getattr(options, "weights_from", None):
        use_weights(cfg, options.weights_from)
    if getattr(options, "folds", None):
        config.use_folds(cfg, options.folds, options.fold_key)
    if getattr(options, "classes", None):
        config.use_classes(cfg, options.classes)
    if getattr(options, "allow_outside", False):
        config.allow_outside(cfg)
    if getattr(options, "skip_broken", False):
        config.skip_broken_images(cfg)
    return cfg


def _check_both_splits(options: Any, cfg: Config) -> None:
    """Check that own training data has own validation data, and the other way round.

    The config's data for the other split is accepted if it is in COCO format and exists.

    Raises:
        InputError: it does not; the message names the missing options.
    """
    given = {split: getattr(options, f"{split}_ann", None) for split in ("train", "val")}
    runs = hasattr(options, "train_ann") and hasattr(
        options, "device"
    )  # a training with its evaluation
    if (
        not runs
        or all(given.values())
        or not any(given.values())
        or getattr(options, "folds", None)
    ):
        return
    has, lacks = ("train", "val") if given["train"] else ("val", "train")
    if not config.has_coco_files(cfg, f"{lacks}_dataloader"):
        message = f"--{has}-ann requires --{lacks}-ann and --{lacks}-images"
        if lacks == "val" and hasattr(options, "folds"):
            message += ", or --folds K to evaluate on parts of the training data"
        raise InputError(message)


def _check_folds(options: Any) -> None:
    """Check --folds and --fold-key against the other options.

    Raises:
        InputError: --fold-key without --folds, or validation data with --folds.
    """
    if getattr(options, "folds", None) is None:
        if getattr(options, "fold_key", None) is not None:
            raise InputError("--fold-key requires --folds")
    elif options.val_ann is not None or options.val_images is not None:
        raise InputError(
            "--folds evaluates on parts of the training data; leave out --val-ann and "
            "--val-images, or --folds"
        )
