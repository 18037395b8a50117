"""Check every setting of a config before anything is built.

Each section of a config is a call: its ``type`` names a class, and its other entries are the
arguments. A mistake is reported with its key and, for a name, the nearest one that exists.
"""

import inspect
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from math import inf
from typing import Any, Literal

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import Registry
from mmengine.runner import Runner, set_random_seed
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from det_losses import registry as ours
from det_losses.errors import InputError, InputTypeError, did_you_mean, located
from det_losses.registry import SCOPE, find
from det_losses.signatures import check_call, check_ranges, short

# Top-level keys that are read, in addition to the arguments of mmengine's Runner.
_ALSO_READ = (
    "custom_imports", "model_wrapper_cfg", "sync_bn", "compile", "runner_type", "strategy",
    "loss_weights",
)  # fmt: skip
_TYPO = 0.88  # similarity to a key that is read, from which on an unknown key is a mistake
_PARAMWISE = (
    "custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "dwconv_decay_mult",
    "flat_decay_mult", "dcn_offset_lr_mult", "bypass_duplicate",
)  # fmt: skip
_MULTIPLES = ("lr_mult", "decay_mult")
MMENGINE_HOOKS = (
    "runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint",
)  # fmt: skip
_HOOK_NAMES = (
    *MMENGINE_HOOKS, "safe_checkpoint", "seed", "non_finite", "loss_record", "progress",
    "run_record", "history",
)  # fmt: skip
_CHOICES = {
    "launcher": ("none", "pytorch", "slurm", "mpi"),
    "log_level": ("DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL", "NOTSET"),
}
_RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "train_cfg": dict.fromkeys(("max_epochs", "max_iters", "steps", "val_interval"), (1, inf)),
    "optim_wrapper": {"accumulative_counts": (1, inf)},
    "optimizer": {"lr": (0, 1000)},
    "clip_grad": {"max_norm": (1e-9, inf), "clip_value": (1e-9, inf)},
    "param_scheduler": {"begin": (0, inf), "end": (0, inf)},
    "auto_scale_lr": {"base_batch_size": (1, inf)},
    "log_processor": {"window_size": (1, inf)},
    "randomness": {"seed": (0, 2**32 - 1)},
    "DataLoader": {"batch_size": (1, inf), "num_workers": (0, inf)},
    "LoggerHook": {"interval": (1, inf)},
}
_LARGEST = 2**63 - 1  # numbers beyond it overflow in torch


@dataclass(frozen=True)
class _Section:
    """A part of a config whose entries are the arguments of a call.

    Attributes:
        key: dotted key in the config.
        config: the entries.
        registry: where its ``type`` is registered; None: it has no type.
        target: what is called without a ``type``.
        given: arguments that mmengine adds.
        extra: further entries that mmengine reads.
        ranges: smallest and largest allowed values.
    """

    key: str
    config: Any
    registry: Registry | None = None
    target: str | Callable[..., Any] | None = None
    given: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def check_settings(cfg: Mapping[str, Any]) -> None:
    """Check names and types of all settings of a config, and the numbers that must be positive.

    Only the keys that are present are checked. Values that only a constructor can judge are not.

    Raises:
        InputError: a number is out of range, or an unknown top-level key is nearly the name of a
            key that mmengine reads.
        InputTypeError: an unknown or missing argument, or a value of the wrong type.
        NotRegisteredError: a ``type`` is not registered.
    """
    _check_size(cfg)
    _check_top_level(cfg)
    for section in _sections(cfg):
        with located(section.key):
            _check(section)


def _check(section: _Section) -> None:
    config = section.config
    if not isinstance(config, Mapping):
        if config is None or isinstance(config, (str, int, float, list, tuple)):
            raise InputTypeError(f"must be a dict of settings, got {short(config)}")
        return  # an object that is built already
    target = section.target if section.registry is None else _target(section)
    name = getattr(target, "__name__", "")
    arguments = {k: v for k, v in config.items() if k not in ("type", "_scope_", *section.extra)}
    also = []
    if name == "CheckpointHook":
        also = [Runner.save_checkpoint]
    elif name == "EMAHook":
        also = [find(ours.MODELS, config.get("ema_type", "ExponentialMovingAverage"))]
    elif name in ("EpochBasedTrainLoop", "IterBasedTrainLoop"):
        also = [_length]
    title = section.key if name.startswith("_") else None
    check_call(target, arguments, given=section.given, also=also, title=title)
    check_ranges(arguments, {**_RANGES.get(name, {}), **section.ranges})


def _target(section: _Section) -> Callable[..., Any]:
    """Return the class that the ``type`` of a section names."""
    target = section.config.get("type", section.target)
    if target is None:
        *_, name = section.key.split(".")
        hint = did_you_mean(name, _HOOK_NAMES) if "hooks" in section.key else ""
        raise InputError(f"needs a `type`, the name of its class. {hint}".rstrip())
    with located("type"):
        found = find(section.registry, target) if isinstance(target, str) else target
        if not callable(found):
            raise InputTypeError(f"must be the name of a class, got {short(target)}")
    return found


def _check_size(value: Any, key: str = "") -> None:
    """Raise InputError for a whole number that does not fit into 64 bits."""
    with located(key):
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise InputError(f"must fit into 64 bits, got a number of {len(str(value))} digits")
        if isinstance(value, (Mapping, Config)):
            for name in value:
                _check_size(value[name], str(name))
        elif isinstance(value, (list, tuple)):
            for index, each in enumerate(value):
                _check_size(each, str(index))


def _sections(cfg: Mapping[str, Any]) -> Iterator[_Section]:
    """List the sections of a config, the outer ones first."""
    yield from _model(cfg)
    yield from _data(cfg)
    yield from _training(cfg)
    for key, loop in (("val_cfg", "ValLoop"), ("test_cfg", "TestLoop")):
        if cfg.get(key) is not None:
            given = ("runner", "dataloader", "evaluator")
            yield _Section(key, cfg[key], ours.LOOPS, loop, given)
    yield from _evaluators(cfg)
    yield from _hooks(cfg)
    yield from _runtime(cfg)


def _model(cfg: Mapping[str, Any]) -> Iterator[_Section]:
    model = cfg.get("model")
    if model is None:
        return
    # fill_from_data completes these two.
    extra = ("num_classes", "class_to_channel")
    yield _Section("model", model, ours.MODELS, given=("num_classes",), extra=extra)
    if not isinstance(model, Mapping):
        return
    backbone = model.get("backbone")
    kind = model.get("type")
    detector = find(ours.MODELS, kind) if isinstance(kind, str) else kind
    if backbone is not None and str(getattr(detector, "__module__", "")).startswith(SCOPE):
        yield _Section("model.backbone", backbone, ours.MODELS)


def _data(cfg: Mapping[str, Any]) -> Iterator[_Section]:
    for split in ("train", "val", "test"):
        key = f"{split}_dataloader"
        loader = cfg.get(key)
        if loader is None:
            continue
        nested = ("dataset", "sampler", "batch_sampler", "collate_fn", "worker_init_fn")
        extra = (*nested, "num_batch_per_epoch")
        yield _Section(key, loader, None, DataLoader, nested, extra)
        if not isinstance(loader, Mapping):
            continue
        yield from _dataset(f"{key}.dataset", loader.get("dataset"))
        for name, registry, given in (
            ("sampler", ours.DATA_SAMPLERS, ("dataset", "seed")),
            ("batch_sampler", ours.DATA_SAMPLERS, ("sampler", "batch_size")),
        ):
            if loader.get(name) is not None:
                yield _Section(f"{key}.{name}", loader[name], registry, None, given)
        collate = loader.get("collate_fn")
        if isinstance(collate, Mapping):
            with located(f"{key}.collate_fn"):
                _target(_Section("", collate, ours.FUNCTIONS))


def _dataset(key: str, dataset: Any) -> Iterator[_Section]:
    """List a dataset, the datasets that it combines, and its transforms."""
    if dataset is None:
        raise InputError(f"{key} is missing: a dataloader needs a dataset")
    yield _Section(key, dataset, ours.DATASETS)
    if not isinstance(dataset, Mapping):
        return
    inner = dataset.get("datasets")
    for index, each in enumerate(inner if isinstance(inner, (list, tuple)) else ()):
        yield from _dataset(f"{key}.datasets.{index}", each)
    if "dataset" in dataset:
        yield from _dataset(f"{key}.dataset", dataset["dataset"])
    if isinstance(dataset.get("folds"), Mapping):
        yield _Section(f"{key}.folds", dataset["folds"], None, _folds)
    yield from _transforms(f"{key}.transforms", dataset.get("transforms"))


def _transforms(key: str, transforms: Any) -> Iterator[_Section]:
    for index, each in enumerate(transforms if isinstance(transforms, (list, tuple)) else ()):
        if isinstance(each, Mapping):
            yield _Section(f"{key}.{index}", each, ours.TRANSFORMS)
            yield from _transforms(f"{key}.{index}.transforms", each.get("transforms"))


def _training(cfg: Mapping[str, Any]) -> Iterator[_Section]:
    if cfg.get("train_cfg") is not None:
        by_epoch = isinstance(cfg["train_cfg"], Mapping) and cfg["train_cfg"].get("by_epoch", True)
        if by_epoch not in (True, False):
            raise InputTypeError(f"train_cfg.by_epoch must be true or false, got {short(by_epoch)}")
        loop = "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop"
        yield from _loop(cfg["train_cfg"], loop)
    yield from _optimizer(cfg.get("optim_wrapper"))
    schedulers = cfg.get("param_scheduler") or []
    if isinstance(schedulers, Mapping) and "type" not in schedulers:
        schedulers = []  # one list for each of several optimizers
    for key, each in _numbered("param_scheduler", schedulers):
        extra, ranges = ("convert_to_iter_based",), _RANGES["param_scheduler"]
        yield _Section(key, each, ours.PARAM_SCHEDULERS, None, ("optimizer",), extra, ranges)
    scaling, ranges = cfg.get("auto_scale_lr"), _RANGES["auto_scale_lr"]
    if scaling is not None:
        yield _Section("auto_scale_lr", scaling, None, _auto_scale_lr, ranges=ranges)


def _loop(train: Any, loop: str) -> Iterator[_Section]:
    """List the settings of the training loop; engine/schedule.py sets those that are left open."""
    given, extra = ("runner", "dataloader"), ("by_epoch",)
    if isinstance(train, Mapping):
        if "steps" in train:
            given = (*given, "max_epochs", "max_iters")
        open_keys = ("max_epochs", "max_iters", "val_interval")
        if str(train.get("type", loop)).endswith(
            "IterBasedTrainLoop"
        ):  # max_epochs may be that of a base config
            given, extra = (*given, "max_epochs"), (*extra, "max_epochs")
        train = {k: v for k, v in train.items() if v is not None or k not in open_keys}
    yield _Section("train_cfg", train, ours.LOOPS, loop, given, extra, _RANGES["train_cfg"])


def _optimizer(wrapper: Any) -> Iterator[_Section]:
    """List an optimizer and its wrapper, unless a constructor of the user reads them."""
    if wrapper is None or (isinstance(wrapper, Mapping) and "constructor" in wrapper):
        return
    if not isinstance(wrapper, (Mapping, str, int, float, list)):
        return  # built already
    extra, ranges = ("optimizer", "paramwise_cfg"), _RANGES["optim_wrapper"]
    registry = ours.OPTIM_WRAPPERS
    yield _Section(
        "optim_wrapper", wrapper, registry, "OptimWrapper", ("optimizer",), extra, ranges
    )
    optimizer = wrapper.get("optimizer")
    if optimizer is None:
        raise InputError("optim_wrapper.optimizer is missing: training needs an optimizer")
    key, ranges = "optim_wrapper.optimizer", _RANGES["optimizer"]
    yield _Section(key, optimizer, ours.OPTIMIZERS, None, ("params",), (), ranges)
    clip = wrapper.get("clip_grad")
    if isinstance(clip, Mapping):
        function = clip_grad_value_ if clip.get("type") == "value" else clip_grad_norm_
        ranges = _RANGES["clip_grad"]
        yield _Section(
            "optim_wrapper.clip_grad", clip, None, function, ("parameters",), ("type",), ranges
        )
    _check_paramwise(wrapper.get("paramwise_cfg") or {})


def _check_paramwise(paramwise: Any) -> None:
    """Check the names of the settings of single parameters; ``custom_keys`` may have others."""
    for name in paramwise:
        if name not in _PARAMWISE:
            hint = did_you_mean(name, _PARAMWISE, f"Its keys are {', '.join(_PARAMWISE)}.")
            raise InputError(f"optim_wrapper.paramwise_cfg.{name}: no such setting. {hint}")
    custom = paramwise.get("custom_keys") if isinstance(paramwise, Mapping) else None
    for key, each in custom.items() if isinstance(custom, Mapping) else ():
        for name in each if isinstance(each, Mapping) else ():
            if _is_mistyped(name, _MULTIPLES):
                place = f"optim_wrapper.paramwise_cfg.custom_keys.{key}.{name}"
                raise InputError(f"{place}: no such setting. {did_you_mean(name, _MULTIPLES)}")


def _evaluators(cfg: Mapping[str, Any]) -> Iterator[_Section]:
    for key in ("val_evaluator", "test_evaluator"):
        evaluator = cfg.get(key)
        if isinstance(evaluator, Mapping) and "metrics" in evaluator:
            yield _Section(key, evaluator, ours.EVALUATOR, "Evaluator")
            key, evaluator = f"{key}.metrics", evaluator["metrics"]
        if evaluator is None:
            continue
        if evaluator in ([], ()):
            raise InputError(f"{key} is empty: an evaluation needs a metric, such as CocoMetric")
        for name, metric in _numbered(key, evaluator):
            yield _Section(name, metric, ours.METRICS)


def _hooks(cfg: Mapping[str, Any]) -> Iterator[_Section]:
    for name, hook in (cfg.get("default_hooks") or {}).items():
        if _is_mistyped(name, _HOOK_NAMES):
            hint = did_you_mean(name, _HOOK_NAMES)
            raise InputError(f"default_hooks.{name}: no hook has this name. {hint}")
        if isinstance(hook, Mapping) and hook.get("interval", 1) is None:
            hook = {k: v for k, v in hook.items() if k != "interval"}  # set by engine/schedule.py
        if hook is not None:
            yield _Section(f"default_hooks.{name}", hook, ours.HOOKS, extra=("priority",))
    for key, hook in _numbered("custom_hooks", cfg.get("custom_hooks") or []):
        yield _Section(key, hook, ours.HOOKS, extra=("priority",))


def _runtime(cfg: Mapping[str, Any]) -> Iterator[_Section]:
    visualizer = cfg.get("visualizer")
    if isinstance(visualizer, Mapping):
        given = ("name", "save_dir")
        yield _Section("visualizer", visualizer, ours.VISUALIZERS, None, given)
        backends = visualizer.get("vis_backends")
        for key, each in _numbered("visualizer.vis_backends", [] if backends is None else backends):
            yield _Section(key, each, ours.VISBACKENDS, None, ("save_dir",))
    processor, ranges = cfg.get("log_processor"), _RANGES["log_processor"]
    if processor is not None:
        yield _Section(
            "log_processor", processor, ours.LOG_PROCESSORS, "LogProcessor", (), (), ranges
        )
    if cfg.get("randomness") is not None:
        ranges = _RANGES["randomness"]
        yield _Section("randomness", cfg["randomness"], None, set_random_seed, ranges=ranges)
    if cfg.get("env_cfg") is not None:
        yield _Section("env_cfg", cfg["env_cfg"], None, _env_cfg)
        yield _Section("env_cfg.mp_cfg", cfg["env_cfg"].get("mp_cfg", {}), None, _mp_cfg)


def _numbered(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """List the entries of a key that has one entry or a list of them, with the key of each."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        yield from ((f"{key}.{index}", each) for index, each in enumerate(value))
    else:
        yield key, value


# The settings that mmengine reads from a dict, as signatures.


def _length(*, steps: int | None = None, by_epoch: bool = True) -> None: ...


def _folds(*, count: int, key: str | None = None, index: int | None = 0) -> None: ...


def _auto_scale_lr(*, base_batch_size: int | None = None, enable: bool = False) -> None: ...


def _env_cfg(
    *,
    cudnn_benchmark: bool = False,
    mp_cfg: dict | None = None,
    dist_cfg: dict | None = None,
    resource_limit: int = 4096,
) -> None: ...


def _mp_cfg(
    *,
    mp_start_method: Literal["fork", "forkserver", "spawn"] = "fork",
    opencv_num_threads: int = 0,
) -> None: ...


# The top level


def _check_top_level(cfg: Mapping[str, Any]) -> None:
    """Check the top-level values, and the spelling of keys that nothing reads."""
    parameters = inspect.signature(Runner).parameters
    optional = ("work_dir", "default_scope")
    names = [key for key in cfg if key in parameters]
    values = {key: cfg[key] for key in names if cfg[key] is not None or key not in optional}
    if values.get("resume") == "auto":  # build_runner looks for a checkpoint
        del values["resume"]
    check_call(Runner, values, given=parameters)
    for key, known in _CHOICES.items():
        value = cfg.get(key, known[0])
        if not isinstance(value, int) and value not in known:
            hint = did_you_mean(value, known, f"It is one of {', '.join(known)}.")
            raise InputError(f"{key}: no such value {value!r}. {hint}")
    known = {*parameters, *_ALSO_READ}
    for key in cfg:
        if key not in known and not key.startswith("_"):
            _check_unknown(key, cfg, known)


def _check_unknown(key: str, cfg: Mapping[str, Any], known: Collection[str]) -> None:
    """Judge a top-level key that is not read: a variable of the config, or a mistake.

    A config may define variables, such as ``data_root``, so an unknown key is an error only if it
    is spelled nearly as a key that is read. A variable with objects to build that are used nowhere
    gets a warning.
    """
    if _is_mistyped(key, known):
        raise InputError(
            f"{key}: mmengine reads no such key. {did_you_mean(key, known)} A variable of your own "
            "needs a less similar name"
        )
    read = [cfg[name] for name in cfg if name in known]
    if _has_type(cfg[key]) and not _occurs(cfg[key], read):
        print_log(
            f"config: mmengine does not read the key {key!r}, and its value occurs nowhere else",
            logger="current",
            level=logging.WARNING,
        )


def _is_mistyped(key: str, known: Collection[str]) -> bool:
    """Return whether an unknown key is spelled nearly as a known one, or with its letters."""
    if key in known:
        return False
    similarity = {each: SequenceMatcher(None, key, each).ratio() for each in known}
    near = max(similarity, key=similarity.__getitem__)
    swapped = sorted(key) == sorted(near)
    return (similarity[near] >= _TYPO or swapped) and not re.fullmatch(rf"{near}[_\d].*", key)


def _inner(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else []


def _has_type(value: Any) -> bool:
    """Return whether an object to build occurs in a value."""
    return (isinstance(value, Mapping) and "type" in value) or any(map(_has_type, _inner(value)))


def _occurs(value: Any, within: Any) -> bool:
    """Return whether a value, or a part of it that has a type, occurs within another."""
    if value == within:
        return True
    parts = [part for part in _inner(value) if _has_type(part)]
    return any(_occurs(value, each) for each in _inner(within)) or any(
        _occurs(part, within) for part in parts
    )
