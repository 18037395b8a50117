"""The plan that is printed before a training: data, length, learning rate, time, disk space."""

import copy
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner

from det_losses.engine.config import entries
from det_losses.engine.coverage import notes_before_training
from det_losses.engine.launcher import process_count
from det_losses.engine.loss_record import losses_of
from det_losses.engine.run_time import measure, trial
from det_losses.engine.schedule import (
    amount,
    batch_text,
    is_by_epoch,
    limit_warm_up,
    set_intervals,
    set_length,
    training_steps,
    warm_up_steps,
)
from det_losses.errors import counted, examples, printable
from det_losses.losses.core.text import loss_text

_WIDTH = 100  # characters per line


def outline(cfg: Config, samples: int, classes: Sequence[str], images: str) -> dict[str, str]:
    """Return the rows of the plan that follow from a config and its data.

    Args:
        cfg: the config; it is not changed.
        samples: samples of a training epoch.
        classes: names of the classes.
        images: the numbers of images, as a phrase.
    """
    own = copy.deepcopy(cfg)
    set_length(own, samples)
    set_intervals(own)
    planned = warm_up_steps(own, samples)
    limit_warm_up(own, samples)
    rows = {
        "images": images,
        "classes": f"{len(classes)}: {examples(classes, 8)}",
        "model": f"{own.model.type}, {_size(own.model)}",
        "anchors": _anchors(own.model),
        "weights": str(own.get("load_from") or own.model.get("weights") or ""),
        "training": _training(own, samples),
        "learning rate": _learning_rate(own, planned, warm_up_steps(own, samples)),
    }
    return {name: text for name, text in rows.items() if text}


def trial_plan(cfg: Config) -> str:
    """Return the plan of a training that is not started, after a line for each remark on its data.

    Raises:
        UserError: as :func:`~det_losses.engine.build.build_runner` does.
    """
    with trial(cfg) as (runner, built):
        notes = notes_before_training(runner.model, *_datasets(runner))
        plan = training_plan(cfg, runner, built)
    return "\n".join([*(printable(f"data: {note}") for note in chain(*notes.values())), plan])


def training_plan(cfg: Config, runner: Runner, built: float) -> str:
    """Return the plan of one training, as a block of text; a few of its steps are timed.

    Args:
        cfg: the config as given.
        runner: of the training, with its parts built; it is not changed.
        built: seconds that building it took.
    """
    train, val = _datasets(runner)
    images = f"{_count(train)} for training, {_count(val or ())} for evaluation"
    classes = (getattr(train, "metainfo", None) or {}).get("classes", ())
    rows = outline(cfg, len(train), classes, images)
    sources = getattr(runner.model, "loss_sources", {})
    for slot, loss in losses_of(runner.model).items():
        given = cfg.model.get(slot)
        text = loss_text(given) if isinstance(given, str | Mapping) else type(loss).__name__
        rows[slot] = ", ".join(filter(None, (text, sources.get(slot))))
    rows["device"] = device_text()
    expected = measure(runner, built)
    evaluation = time_text(expected.evaluation)
    rows["time"] = f"about {time_text(expected.seconds)}, of which evaluations take {evaluation}"
    rows["disk"] = disk_text(expected.disk, Path(cfg.work_dir))
    return printable(aligned("Plan", rows))


def _datasets(runner: Runner) -> tuple[Any, Any]:
    """Return the datasets of training and of evaluation; None without an evaluation."""
    val = runner.val_dataloader.dataset if runner.val_loop else None
    return runner.train_dataloader.dataset, val


def _count(dataset: Any) -> int:
    return getattr(dataset, "num_images", len(dataset))


def aligned(title: str, rows: Mapping[str, str]) -> str:
    """Return a title and one line for each row, with aligned texts; long ones are wrapped.

    >>> print(aligned("Plan", {"images": "8", "model": "FCOS"}))
    Plan
      images  8
      model   FCOS
    """
    width = max(map(len, rows)) + 2
    lines = [title]
    for name, text in rows.items():
        first, *rest = textwrap.wrap(text, _WIDTH - width - 2, break_on_hyphens=False) or [""]
        lines.append(f"  {name:{width}}{first}".rstrip())
        lines += [f"  {'':{width}}{each}" for each in rest]
    return "\n".join(lines)


def disk_text(needed: float, folder: Path) -> str:
    """Return the disk space that is needed and the space that is free where a folder is made."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(existing).free
    text = f"about {size_text(needed)} of {size_text(free)} free"
    return text if needed < free else f"{text}: TOO LITTLE SPACE"


def time_text(seconds: float) -> str:
    """Return a duration in minutes, or in hours if it is long.

    >>> time_text(4), time_text(247), time_text(30_000)
    ('0.1 min', '4.1 min', '8.3 h')
    """
    minutes = seconds / 60
    return f"{max(minutes, 0.1):.1f} min" if minutes < 180 else f"{minutes / 60:.1f} h"


def size_text(count: float) -> str:
    """Return a number of bytes in MB or GB.

    >>> size_text(3_200_000), size_text(24_000_000_000)
    ('3 MB', '24 GB')
    """
    if count < 1e9:
        return f"{max(1, round(count / 1e6))} MB"
    return f"{count / 1e9:.1f} GB" if count < 1e10 else f"{count / 1e9:,.0f} GB"


def device_text() -> str:
    """Return the device that models run on, with its name."""
    import torch

    device = get_device()
    if device == "cuda":
        return f"cuda:{torch.cuda.current_device()} ({torch.cuda.get_device_name()})"
    threads = torch.get_num_threads()
    return f"{device}, {counted(threads, 'thread')}" if device == "cpu" else device


def _size(model: Mapping[str, Any]) -> str:
    low, high = model.get("min_size"), model.get("max_size")
    if low is None:
        return "images of the size that the model sets"
    low = max(low) if isinstance(low, Sequence) else low
    longest = f", longest at most {high} px" if high and high != low else ""
    return f"images with a shortest side of {low} px{longest}" if longest else f"images of {low} px"


def _anchors(model: Mapping[str, Any]) -> str:
    """Return the anchors that the config sets, with a slash between levels."""
    if model.get("anchor_sizes"):
        return f"sizes {_levels(model['anchor_sizes'])} px"
    if not model.get("anchors"):
        return ""
    sizes, ratios = (_levels(model["anchors"][key]) for key in ("sizes", "aspect_ratios"))
    return f"sizes {sizes} px, aspect ratios {ratios}"


def _levels(levels: Sequence[Any]) -> str:
    """Return numbers, or those of each level.

    >>> _levels([[8, 10.5], [16, 20]]), _levels([0.5, 1.0])
    ('8 10.5 / 16 20', '0.5 1')
    """
    if not isinstance(levels[0], Sequence):
        return " ".join(f"{number:g}" for number in levels)
    return " / ".join(map(_levels, levels))


def _training(cfg: Config, samples: int) -> str:
    steps, train = training_steps(cfg, samples), cfg.train_cfg
    batch = batch_text(cfg.train_dataloader.get("batch_size"), process_count(cfg))
    if steps is None:
        return batch
    every = train.get("val_interval", 1)
    if not is_by_epoch(cfg):
        return f"{steps:,} steps, {batch}; {_evaluations(steps, every, 'step')}"
    epochs = train.max_epochs
    count = f"{amount(epochs, 'epoch')} ({amount(steps, 'step')})"
    return f"{count}, {batch}; {_evaluations(epochs, every, 'epoch')}"


def _evaluations(length: int, every: int, unit: str) -> str:
    if every >= length:
        return "evaluated at the end"
    return f"evaluated every {every:,} {unit}s" if every > 1 else f"evaluated every {unit}"


def _learning_rate(cfg: Config, planned: int, warm_up: int) -> str:
    optimizer = (cfg.get("optim_wrapper") or {}).get("optimizer") or {}
    if optimizer.get("lr") is None:
        return ""
    rate, scaling = optimizer["lr"], cfg.get("auto_scale_lr") or {}
    batch_size = (cfg.train_dataloader.get("batch_size") or 0) * process_count(cfg)
    scaled = ""
    if scaling.get("enable") and batch_size and scaling.get("base_batch_size") != batch_size:
        rate *= batch_size / scaling["base_batch_size"]
        scaled = f", scaled from {optimizer['lr']:g} for {scaling['base_batch_size']} images a step"
    kinds = [str(each.get("type")) for each in entries(cfg.get("param_scheduler"))]
    decay = [kind.split(".")[-1] for kind in kinds if "Linear" not in kind]
    parts = [f"{rate:g} ({optimizer.get('type')}{scaled})", *decay]
    if warm_up:
        shortened = f" (shortened from {planned:,}: at most a tenth of the training)"
        parts.append(f"warm-up {amount(warm_up, 'step')}{shortened if warm_up < planned else ''}")
    return ", ".join(parts)
