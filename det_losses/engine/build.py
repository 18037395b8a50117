"""Build mmengine's Runner from a config."""

import contextlib
import copy
import itertools
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from det_losses.data.image_check import reported_together
from det_losses.data.split_checks import check_boxes
from det_losses.engine.checkpoint import (
    check_resumable,
    check_tested,
    check_weights,
    newest_checkpoint,
)
from det_losses.engine.checks import (
    check_amp,
    check_checkpoint,
    check_same_classes,
    config_errors,
    fill_from_data,
    set_monitors,
)
from det_losses.engine.config import TEST, VALIDATION, entries, use_labels, use_validation
from det_losses.engine.config_text import FastTextConfig
from det_losses.engine.cpu import convolve_with_onednn, keep_freed_memory
from det_losses.engine.device import uses_cuda
from det_losses.engine.launcher import divide_images, prepare_launcher, process_count
from det_losses.engine.pretrained import loaded_lines, name_classes, take_load_from
from det_losses.engine.rank_watch import RankWatchHook
from det_losses.engine.runner import IN_PLAN, QuietRunner, leave_out_plan
from det_losses.engine.schedule import limit_warm_up, set_intervals, set_length
from det_losses.engine.settings import MMENGINE_HOOKS, check_settings
from det_losses.errors import InputError, did_you_mean, located
from det_losses.models.weight_files import weights_skipped
from det_losses.registry import DATASETS, FUNCTIONS, SCOPE

_TRAINING = ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr")

_numbers = itertools.count()


def build_runner(
    cfg: Config | Mapping[str, Any], *, train: bool = True, planned: bool = False
) -> Runner:
    """Build mmengine's Runner from a config, after all checks that need no training.

    The config is not changed. Missing entries get defaults: ``default_scope``; ``work_dir``
    (``work_dirs/<name of the config>``); the model's number of classes from the training dataset
    (for testing: the test dataset); ``test_*`` from ``val_*``; the dataloaders' ``collate_fn``
    (``detection_collate``); the number of epochs from ``train_cfg.steps`` and the number of images;
    the intervals and the length of a cosine schedule that are left open
    (:mod:`~det_losses.engine.schedule`). The evaluators' ``out_file`` is relative to the work_dir.

    Args:
        cfg: the config; ``launcher``, ``resume``, ``load_from`` and ``randomness`` as in mmengine.
            ``resume="auto"`` resumes from the newest checkpoint in the work_dir that can be used,
            or starts (from ``load_from``) if there is none; so does ``resume=True`` without
            ``load_from``.
        train: True for ``runner.train()`` and ``runner.val()``; False for ``runner.test()``, which
            needs no training data and builds no optimizer.
        planned: the plan of the training has been printed, so what it says (length, warm-up,
            losses) is only in the log file.

    Returns:
        The Runner. It prints a short log on the terminal and writes a complete log file.

    Raises:
        InputError: a key is missing, mixed precision is used without an accelerator,
            ``num_classes`` contradicts the data, training and validation classes differ, or the
            checkpoint to load cannot be used.
        InputTypeError: a ``type`` gets an unexpected argument.
        NotRegisteredError: a ``type`` is not registered.
        MissingFileError: the data or the checkpoint to load does not exist.
    """
    if get_device() == "cpu":
        keep_freed_memory()
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else Config(copy.deepcopy(dict(cfg)))
    _select_parts(cfg, train)
    check_settings(cfg)
    check_amp(cfg.get("optim_wrapper"))
    prepare_launcher(cfg)
    with located("load_from"):
        check_checkpoint(cfg.get("load_from"))
    _drop_hooks(cfg)
    _set_directories(cfg)
    notes = _find_start(cfg)
    if train:
        take_load_from(cfg)
    _set_collate(cfg)
    divide_images(cfg)
    cfg.setdefault("default_scope", SCOPE)
    with config_errors(cfg):
        datasets = build_datasets(cfg)
    length = shortened = None
    if train:
        for key, dataset in datasets.items():
            check_boxes(dataset, evaluation=key == "val_dataloader")
        images = len(datasets["train_dataloader"])
        length = set_length(cfg, images)
        set_intervals(cfg)
        shortened = limit_warm_up(cfg, images)
    metainfo = {key: getattr(dataset, "metainfo", None) or {} for key, dataset in datasets.items()}
    if known := [each for each in metainfo.values() if "classes" in each]:
        first, *others = known
        for other in others:
            check_same_classes(first, other)
        fill_from_data(cfg.model, first)
        name_classes(cfg, first["classes"])
        set_monitors(cfg, metainfo.get("val_dataloader", {}))
    # mmengine 0.10 uses deprecated names of torch.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"mmengine\.")
    # A resumed or tested checkpoint has all weights, so no others are read or downloaded.
    whole = bool(cfg.get("load_from")) and (not train or bool(cfg.get("resume")))
    with config_errors(cfg), weights_skipped() if whole else contextlib.nullcontext():
        runner = QuietRunner.from_cfg(FastTextConfig.of(cfg))
    if train:
        convolve_with_onednn(runner.model)
    if process_count(cfg) > 1 and not any(isinstance(h, RankWatchHook) for h in runner.hooks):
        runner.register_hook(RankWatchHook())
    runner.datasets = tuple((cfg[key].dataset, built) for key, built in datasets.items())
    if planned:
        leave_out_plan(runner.logger)
    for text in filter(None, (length, shortened)):
        runner.logger.info(str(text), extra=IN_PLAN)
    for note in [*notes, *_unused_keys(cfg, runner.model)]:
        runner.logger.warning(note)
    for is_warning, line in loaded_lines(runner.model):
        runner.logger.log(logging.WARNING if is_warning else logging.INFO, line)
    if cfg.get("load_from") and not train and "://" not in cfg.load_from:
        check_tested(runner, Path(cfg.load_from).expanduser())
    elif cfg.get("load_from"):
        check_weights(runner.model, cfg.load_from, whole=whole)
    return runner


def _unused_keys(cfg: Config, model: torch.nn.Module) -> list[str]:
    """Return a sentence for each of ``custom_keys`` that no parameter of the model matches."""
    paramwise = (cfg.get("optim_wrapper") or {}).get("paramwise_cfg") or {}
    names = [name for name, _ in model.named_parameters()]
    modules = [name for name, _ in model.named_modules() if name]
    return [
        f"optim_wrapper.paramwise_cfg.custom_keys.{key}: no parameter has this in its name. "
        f"{did_you_mean(key, modules)}".rstrip()
        for key in paramwise.get("custom_keys") or {}
        if not any(key in name for name in names)
    ]


def _find_start(cfg: Config) -> list[str]:
    """Set the checkpoint from which the run is resumed; return messages about damaged ones."""
    notes = []
    if cfg.get("resume") and (cfg.resume == "auto" or not cfg.get("load_from")):
        found, notes = newest_checkpoint(cfg)
        cfg.resume = found is not None
        if found:
            cfg.load_from = str(found)
    elif cfg.get("resume"):
        check_resumable(Path(cfg.load_from).expanduser())
    return notes


def _select_parts(cfg: Config, train: bool) -> None:
    if cfg.get("model") is None:
        raise InputError(f"the config {cfg.filename or ''} has no `model`")
    if not train:
        use_validation(cfg)
    for key in (*_TRAINING, *VALIDATION) if not train else TEST:
        cfg.pop(key, None)
    needed = _TRAINING[:3] if train else TEST
    for key in needed:
        if cfg.get(key) is None:
            purpose = "training" if train else "testing"
            raise InputError(
                f"the config {cfg.filename or ''} has no `{key}`, which {purpose} requires"
            )


def _drop_hooks(cfg: Config) -> None:
    """Remove the default hooks that are None; mmengine itself removes its own only."""
    hooks = cfg.get("default_hooks") or {}
    for name in [name for name in hooks if hooks[name] is None and name not in MMENGINE_HOOKS]:
        del hooks[name]


def _set_directories(cfg: Config) -> None:
    """Set the directories of the run's files, and a name that is unique in this process."""
    name = Path(cfg.filename).stem if cfg.filename else None
    if not cfg.get("work_dir"):
        if name is None:
            raise InputError("the config has no `work_dir`, and no file name to derive one from")
        cfg.work_dir = os.path.join("work_dirs", name)
    cfg.work_dir = os.path.abspath(cfg.work_dir)
    # mmengine keeps one logger and one message hub per experiment name. Its default names have a
    # resolution of one second: two runs started in the same second would share log and history.
    number = next(_numbers)
    if not cfg.get("experiment_name"):
        cfg.experiment_name = name or os.path.basename(cfg.work_dir)
    if number:
        cfg.experiment_name += f"_{number}"
    for key in ("val_evaluator", "test_evaluator"):
        for evaluator in entries(cfg.get(key)):
            if evaluator.get("out_file"):
                evaluator.out_file = os.path.join(cfg.work_dir, evaluator.out_file)
            if "CocoMetric" in str(evaluator.get("type")):
                evaluator.setdefault("collect_dir", os.path.join(cfg.work_dir, ".collect"))


def _set_collate(cfg: Config) -> None:
    """Set the collate function of each dataloader, with the scope in its name.

    Batches are pinned if there is a GPU, so that copying them does not wait for it. There are no
    more workers than cores, about which torch warns; their number does not change the batches.

    mmengine looks up a collate function only in its own registry, whatever the default scope is.
    """
    FUNCTIONS.import_from_location()
    for key in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if cfg.get(key) is not None:
            cfg[key].setdefault("collate_fn", dict(type="detection_collate"))
            cfg[key].setdefault("pin_memory", uses_cuda())
            if cfg[key].get("num_workers"):
                cfg[key].num_workers = min(cfg[key].num_workers, _usable_cores())
            collate = cfg[key].collate_fn
            if isinstance(collate, dict) and collate["type"] in FUNCTIONS.module_dict:
                collate["type"] = f"{SCOPE}.{collate['type']}"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def build_datasets(cfg: Config) -> dict[str, Any]:
    """Build the datasets of all dataloaders; those of an evaluation get the training's classes.

    Args:
        cfg: the config; the classes of the training data are added to the other datasets.

    Returns:
        Key of each dataloader -> its dataset.

    Raises:
        UserError: the data cannot be used; the broken images of all datasets are one error.
    """
    found: dict[str, Any] = {}
    scope = DefaultScope.overwrite_default_scope(cfg.get("default_scope") or SCOPE)
    with scope, reported_together():
        for key in ("train_dataloader", "val_dataloader", "test_dataloader"):
            if cfg.get(key) is not None:
                found[key] = DATASETS.build(cfg[key].dataset)
                classes = (getattr(found[key], "metainfo", None) or {}).get("classes")
                if key == "train_dataloader" and classes:
                    use_labels(cfg, classes)
    return found
