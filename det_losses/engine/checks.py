"""Checks of a config before training or testing starts."""

import contextlib
import os
import traceback
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from types import FrameType
from typing import Any

from mmengine.device import get_device
from mmengine.utils import is_seq_of

from det_losses.engine.config import entries
from det_losses.errors import (
    InputError,
    InputTypeError,
    MissingFileError,
    NotRegisteredError,
    UserError,
    counted,
    did_you_mean,
    located,
    one_line,
)
from det_losses.evaluation.summary import metric_names
from det_losses.registry import SCOPE, find

_NO_AMP = ("cpu", "mps")  # devices that mmengine's AmpOptimWrapper does not support


def fill_from_data(model: MutableMapping[str, Any], metainfo: Mapping[str, Sequence[Any]]) -> None:
    """Complete the config of a model from its training data.

    ``num_classes`` that is absent or None becomes the number of classes;
    ``class_to_channel="category_id"`` becomes the list of official category ids, for weights whose
    channels are numbered by them, such as torchvision's with 91 channels.

    Args:
        model: config of the model, changed in place.
        metainfo: the dataset's ``classes`` and ``category_ids``.

    Raises:
        InputError: ``num_classes`` differs from the number of classes of the data.
    """
    classes = metainfo["classes"]
    given = model.get("num_classes")
    if given not in (None, len(classes)):
        raise InputError(
            f"model.num_classes is {given}, but the data has {counted(len(classes), 'class')} "
            f"({join_names(classes)}); remove num_classes to use that number"
        )
    model["num_classes"] = len(classes)
    if model.get("class_to_channel") == "category_id":
        model["class_to_channel"] = list(metainfo["category_ids"])


def check_same_classes(
    train: Mapping[str, Sequence[str]], val: Mapping[str, Sequence[str]]
) -> None:
    """Raise InputError if training and validation data differ in their classes or their order."""
    ours, theirs = list(train["classes"]), list(val["classes"])
    if ours == theirs:
        return
    parts = [
        f"only in {where}: {join_names(names)}"
        for where, names in (
            ("training", [name for name in ours if name not in theirs]),
            ("validation", [name for name in theirs if name not in ours]),
        )
        if names
    ]
    orders = f"in a different order: {join_names(ours)} and {join_names(theirs)}"
    found = "; ".join(parts) or orders
    raise InputError(
        f"training and validation data have different classes, {found}. Select the same classes "
        "with --classes NAME ..., or in a config with the same `classes` in both datasets and "
        "keep_negatives=True, which keeps the images without them"
    )


def check_amp(optim_wrapper: Mapping[str, Any] | None) -> None:
    """Raise InputError for mixed precision on a machine without an accelerator."""
    kind = str((optim_wrapper or {}).get("type"))
    if "AmpOptimWrapper" in kind and get_device() in _NO_AMP:
        raise InputError(
            f"mixed precision (--amp, optim_wrapper.type={kind!r}) needs a GPU, but torch finds "
            f"only the device {get_device()!r}; remove it. On a processor that computes in "
            "bfloat16, --amp uses optim_wrapper.type='BFloat16OptimWrapper' instead"
        )


def check_checkpoint(load_from: str | None) -> None:
    """Raise MissingFileError if ``load_from`` is a local path that does not exist."""
    if load_from and "://" not in load_from and not os.path.isfile(os.path.expanduser(load_from)):
        raise MissingFileError(f"checkpoint {load_from!r}: no such file")


def set_monitors(cfg: Mapping[str, Any], metainfo: Mapping[str, Sequence[Any]]) -> None:
    """Check the metrics that hooks and schedulers monitor, and that a higher AP is better.

    mmengine looks at ``save_best`` and ``monitor`` after the first validation only, and does not
    know which values of AP are better. ``"auto"`` becomes the first metric, AP. Nothing is done if
    a metric other than CocoMetric is used, whose names are unknown.

    Args:
        cfg: the config; the ``rule`` of hooks is set in it.
        metainfo: ``classes`` of the validation data.

    Raises:
        InputError: no such metric, for which the nearest names are suggested; or lower values
            count as better.
    """
    names = _metric_names(cfg.get("val_evaluator"), metainfo.get("classes", ()))
    if not names:
        return
    hooks = {f"default_hooks.{k}": hook for k, hook in (cfg.get("default_hooks") or {}).items()}
    hooks |= {f"custom_hooks.{i}": hook for i, hook in enumerate(cfg.get("custom_hooks") or [])}
    schedulers = entries(cfg.get("param_scheduler"))
    hooks |= {f"param_scheduler.{i}": each for i, each in enumerate(schedulers)}
    for key, hook in hooks.items():
        for name in ("save_best", "monitor") if isinstance(hook, Mapping) else ():
            given = hook.get(name)
            if name == "monitor" and "ReduceOnPlateau" in str(hook.get("type")):
                given = given or "loss"  # mmengine's default, which no validation returns
            if given is None:
                continue
            if given in ("auto", ["auto"]):
                given = hook[name] = names[0]
            for metric in [given] if isinstance(given, str) else given:
                if metric not in names:
                    hint = did_you_mean(metric, names, f"It has {join_names(names, 14)}.")
                    raise InputError(f"{key}.{name}: no metric {metric!r}. {hint}")
            rules = hook.get("rule") or "greater"
            if "less" in ([rules] if isinstance(rules, str) else rules):
                raise InputError(
                    f"{key}.rule: 'less' keeps the worst, because higher values of {given} are "
                    "better. Remove rule"
                )
            hook["rule"] = rules


def _metric_names(evaluator: Any, classes: Sequence[str]) -> list[str]:
    """Return the names of the values that an evaluation returns; none if they are not known."""
    found = []
    for metric in entries(evaluator):
        if not isinstance(metric, Mapping) or not str(metric.get("type")).endswith("CocoMetric"):
            return []
        prefix = f"{metric['prefix']}/" if metric.get("prefix") else ""
        names = metric_names(classes, (1, 10, metric.get("max_dets", 100)))
        found += [f"{prefix}{name}" for name in names]
    return found


def join_names(names: Sequence[str], limit: int = 8) -> str:
    """Join names to one line: all of them, or the first ``limit`` and their total number."""
    if not is_seq_of(list(names), str) or len(names) <= limit:
        return ", ".join(map(str, names))
    return ", ".join([*names[:limit], f"... ({len(names)} in total)"])


_CONVERTED = (
    (TypeError, InputTypeError),
    (KeyError, NotRegisteredError),
    ((ValueError, AssertionError), InputError),
)


@contextlib.contextmanager
def config_errors(cfg: Mapping[str, Any]) -> Iterator[None]:
    """Convert exceptions that a mistake in the config causes in mmengine or in a constructor.

    mmengine calls registered classes with arguments from the config. A TypeError, ValueError,
    KeyError or AssertionError is an error in the config if mmengine's own code raised it (an
    unknown ``type``, an unexpected argument) or if the constructor itself raised it (an invalid
    value). If it was raised in a deeper call or by this package, it is a bug and is not converted.
    Every UserError gets the key of the section that mmengine was building.

    Args:
        cfg: the config, to find the key.

    Raises:
        InputError, InputTypeError, NotRegisteredError: the converted exceptions.
    """
    try:
        yield
    except UserError as error:
        key = _section_key(cfg, _frames(error))
        # A dataset's own errors are about files, which they name.
        with located("" if key.endswith(".dataset") and not error.key else key):
            raise
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        frames = _frames(error)
        converted = _converted(error, list(frames))
        if converted is None:
            raise
        with located(_section_key(cfg, frames) or "config"):
            raise converted from error


def _frames(error: Exception) -> list[FrameType]:
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def _converted(error: Exception, frames: list[FrameType]) -> UserError | None:
    """Return the error of the user that an exception stands for; None for a bug."""
    own = frames[-1].f_globals["__name__"].startswith(f"{SCOPE}.")
    constructors = []
    while frames[-1].f_code.co_name in ("__init__", "__new__"):
        constructors.append(frames.pop())
    caller = frames[-1].f_globals["__name__"]
    if own or not caller.startswith("mmengine."):
        return None
    known = dict(frames[-1].f_locals)  # before Python 3.13 it is a dict
    if isinstance(error, KeyError) and {"registry", "obj_type"} <= known.keys():
        try:
            find(known["registry"], known["obj_type"])  # raises, with the nearest names
        except NotRegisteredError as not_registered:
            return not_registered
    cls = f"{_class_of(constructors[-1])}: " if constructors else ""
    kind = next(ours for builtin, ours in _CONVERTED if isinstance(error, builtin))
    reason = error.args[0] if error.args else repr(error)  # KeyError quotes its message
    return kind(f"{cls}{one_line(reason)}")


def _section_key(cfg: Mapping[str, Any], frames: list[FrameType]) -> str:
    """Return the key of the innermost section that mmengine was building, or ``""``."""
    for frame in reversed(frames):
        if frame.f_globals["__name__"].startswith("mmengine."):
            for name in ("cfg", "dataloader"):  # of build_from_cfg and Runner.build_dataloader
                part = frame.f_locals.get(name)
                if isinstance(part, Mapping) and (key := _key_of(part, dict(cfg.items()))):
                    return key
    return ""


def _key_of(part: Mapping[str, Any], within: Any, key: str = "") -> str:
    """Return the dotted key of the first section of a config that ``part`` was made from.

    mmengine adds entries to ``part``, such as the parameters to an optimizer's.
    """
    is_section = key and isinstance(within, Mapping) and ("type" in within or "dataset" in within)
    if is_section and all(name in part and part[name] == each for name, each in within.items()):
        return key
    if isinstance(within, Mapping):
        items = within.items()
    else:
        items = enumerate(within) if isinstance(within, (list, tuple)) else ()
    prefix = f"{key}." if key else ""
    return next(filter(None, (_key_of(part, each, f"{prefix}{name}") for name, each in items)), "")


def _class_of(constructor: FrameType) -> str:
    first = constructor.f_locals[constructor.f_code.co_varnames[0]]
    return (first if isinstance(first, type) else type(first)).__name__
