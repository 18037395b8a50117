"""Configs of experiments: read by name, change by options, write as text."""

import contextlib
import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.runner import Runner

from det_losses.data.formats import as_coco
from det_losses.engine.bfloat16 import cpu_has_bfloat16
from det_losses.errors import InputError, MissingFileError, did_you_mean, one_line
from det_losses.losses.core.text import parse_loss, parse_value
from det_losses.paths import find_config
from det_losses.registry import MODELS, SCOPE, find

_LOADERS = {"train": ("train_dataloader",), "val": ("val_dataloader", "test_dataloader")}
VALIDATION = ("val_dataloader", "val_cfg", "val_evaluator")
TEST = ("test_dataloader", "test_cfg", "test_evaluator")
_KEPT = ("transforms", "test_mode", "keep_negatives", "cache_mb", "cache_dir")
_DEPTH = 30  # levels of a config

Paths = str | Path | Sequence[str | Path]


def read_config(name: str) -> Config:
    """Read a config by path or shipped name.

    Raises:
        MissingFileError: no such config.
        InputError: it cannot be read, or a part that every experiment needs is missing.
    """
    path = find_config(name)
    try:
        with _shipped_bases():
            cfg = Config.fromfile(path)
    except MissingFileError:
        raise
    except Exception as error:
        cause = _cause(error)
        raise InputError(f"config {path}: {type(cause).__name__}: {one_line(cause)}") from error
    parts = ["train_dataloader", "val_dataloader", "val_evaluator"]
    for key in [*([] if "trainer" in cfg else ["model"]), *parts]:  # a trainer has its own model
        if key not in cfg:
            raise InputError(f"config {path} has no `{key}`, so it is not a complete experiment")
    return cfg


def _cause(error: BaseException) -> BaseException:
    """Return the OSError that mmengine failed to handle, or the error itself.

    Without space for its temporary files, ``Config.fromfile`` raises an UnboundLocalError.
    """
    handled = isinstance(error, UnboundLocalError) and error.__context__
    return handled if isinstance(handled, OSError) else error


@contextlib.contextmanager
def _shipped_bases() -> Iterator[None]:
    """Let ``_base_ = "det_losses::small/retinanet_lite0"`` name a shipped config.

    This is mmengine's syntax for a config of another package. mmengine itself finds those of
    OpenMMLab's packages only, in a folder that their installation makes.
    """
    original = Config._get_cfg_path

    def path_of(name: str, filename: str) -> tuple[str, str | None]:
        scope, colons, own = name.partition("::")
        if not colons or scope != SCOPE:
            return original(name, filename)
        return str(find_config(own, shipped=True)), None

    Config._get_cfg_path = staticmethod(path_of)
    try:
        yield
    finally:
        Config._get_cfg_path = staticmethod(original)


def import_in_runs(cfg: Config, modules: Sequence[str]) -> None:
    """Add modules to ``custom_imports``, which mmengine imports where it reads the config.

    So a process that trains a stored config imports them too.
    """
    known = cfg.get("custom_imports") or {}
    imports = known.get("imports") or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    names = [name.removesuffix(".py") for name in modules]
    if names:
        cfg.custom_imports = ConfigDict({**known, "imports": list(dict.fromkeys(imports + names))})


def apply_options(cfg: Config, options: list[str]) -> None:
    """Merge ``key=value`` texts into the config.

    Raises:
        InputError: an option has no ``=``, the first part of its key is unknown, or it is nested
            deeper than any config.
    """
    known = {*cfg, *inspect.signature(Runner).parameters}
    merged: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise InputError(f"--cfg-options: expected KEY=VALUE, got {one_line(option)!r}")
        first = key.split(".")[0]
        if first not in known:
            hint = did_you_mean(first, known, f"It has {', '.join(sorted(cfg))}.")
            raise InputError(
                f"--cfg-options {one_line(option, 80)}: the config has no {first!r}. {hint}"
            )
        merged[key] = parse_value(value)
        if key.count(".") > _DEPTH or not _is_shallow(merged[key], _DEPTH):
            raise InputError(
                f"--cfg-options {one_line(option, 80)}: nested deeper than {_DEPTH} levels"
            )
    if "train_cfg.steps" in merged and "train_cfg.max_epochs" not in merged:
        cfg.train_cfg.pop("max_epochs", None)  # which would take precedence
    try:
        cfg.merge_from_dict(merged)
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        raise InputError(
            f"--cfg-options {one_line(' '.join(options), 80)}: "
            f"{one_line(error.args[0] if error.args else error)}"
        ) from error


def _is_shallow(value: Any, depth: int) -> bool:
    """Return whether a value has at most ``depth`` levels of dicts and lists."""
    inner = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, (Mapping, list, tuple)):
        return True
    return depth > 0 and all(_is_shallow(each, depth - 1) for each in inner)


def use_losses(cfg: Config, options: list[str]) -> None:
    """Set the losses given by ``SLOT=LOSS`` texts.

    Args:
        cfg: the config, changed in place.
        options: texts such as ``"loss_bbox=CIoULoss"`` or ``"loss_cls=FocalLoss(gamma=1.5)"``.

    Raises:
        InputError: no ``=``, a loss that cannot be parsed, or a slot that the detector lacks.
        NotRegisteredError: no such detector.
    """
    for option in options:
        slot, equals, text = option.partition("=")
        if not equals or not text.strip():
            raise InputError(f"--loss: expected SLOT=LOSS, got {option!r}")
        detector = find(MODELS, cfg.model.type)
        slots = getattr(detector, "slots", None)
        if slots is None:  # a detector of another package
            slots = [n for n in inspect.signature(detector).parameters if n.startswith("loss_")]
        if slot not in slots:
            raise InputError(
                f"--loss {option}: {detector.__name__} has no slot {slot!r}; it has "
                f"{', '.join(slots) or 'none'}"
            )
        cfg.model[slot] = ConfigDict(parse_loss(text))


def use_own_data(
    cfg: Config,
    split: str,
    ann_file: Paths | None,
    image_dir: Paths | None,
) -> None:
    """Replace the dataset of ``"train"`` or of ``"val"`` (and test) by the user's data.

    Only transforms, test_mode and keep_negatives of the config's dataset are kept, because its
    classes and number of images were chosen for other data.

    Args:
        cfg: the config, changed in place.
        split: ``"train"`` or ``"val"``.
        ann_file: annotation json, or a list of them; or data of YOLO or Pascal VOC, which is
            converted (:mod:`det_losses.data.formats`).
        image_dir: folder of the images, or a list of them.

    Raises:
        MissingFileError: a file of YOLO or Pascal VOC is missing.
        InputError: only one of the two paths is given, or a file is invalid.
    """
    ann_file, image_dir = as_coco(ann_file, image_dir, split)
    if ann_file is None and image_dir is None:
        return
    if ann_file is None or image_dir is None:
        given, missing = ("images", "ann") if ann_file is None else ("ann", "images")
        raise InputError(f"--{split}-{given} requires --{split}-{missing}")
    for loader in _LOADERS[split]:
        if not _has_dataset(cfg, loader):
            continue
        base = _unwrapped(cfg[loader].dataset)[0]
        cfg[loader].dataset = ConfigDict(
            type="CocoDataset",
            ann_file=_absolute(ann_file),
            image_dir=_absolute(image_dir),
            **{key: base[key] for key in _KEPT if key in base},
        )


def _absolute(paths: Paths) -> str | list[str]:
    single = isinstance(paths, (str, Path))
    found = [str(Path(path).absolute()) for path in ([paths] if single else paths)]
    return found[0] if len(found) == 1 else found


def use_validation(cfg: Config) -> None:
    """Complete ``test_*`` by the settings of ``val_*``, for a test.

    An entry that names its own dataset or class is complete. Any other one gives only what differs,
    such as ``test_dataloader = dict(batch_size=1)``.
    """
    for ours, theirs in zip(TEST, VALIDATION, strict=True):
        own, base = cfg.get(ours), copy.deepcopy(cfg.get(theirs))
        if own is None:
            cfg[ours] = base
        elif isinstance(own, Mapping) and isinstance(base, Mapping):
            dataset = own.get("dataset") or {}
            if "type" not in own and "type" not in dataset:
                cfg[ours] = ConfigDict(Config._merge_a_into_b(own, base))


def has_coco_files(cfg: Config, loader: str) -> bool:
    """Return whether a dataloader reads COCO annotation files that exist."""
    if not _has_dataset(cfg, loader):
        return False
    parts = _unwrapped(cfg[loader].dataset)
    files = [part.get("ann_file") for part in parts if _is_coco(part)]
    files = [file for each in files for file in ([each] if isinstance(each, str) else each or [])]
    return bool(files) and all(Path(file).is_file() for file in files)


def skip_broken_images(cfg: Config) -> None:
    """Leave out images that cannot be read.

    Raises:
        InputError: a dataset is not a CocoDataset.
    """
    for _, dataset in _coco_datasets(cfg, "--skip-broken"):
        dataset.skip_broken = True


def use_classes(cfg: Config, names: Sequence[str]) -> None:
    """Use only these classes in training and evaluation, and keep the images without them.

    A class that the validation data lacks has no boxes there.

    Raises:
        InputError: a dataset is not a CocoDataset.
    """
    for loader, dataset in _coco_datasets(cfg, "--classes"):
        dataset.update(classes=list(names), keep_negatives=True)
        if loader not in _LOADERS["train"]:
            dataset.labels = list(names)


def use_labels(cfg: Config, classes: Sequence[str]) -> None:
    """Match the classes of validation and test data with those of the training data, by name.

    Datasets for which classes were chosen in the config are not changed.

    Args:
        cfg: the config, changed in place.
        classes: the names of the training data's classes by label.
    """
    for loader in _LOADERS["val"]:
        for dataset in _unwrapped(cfg[loader].dataset) if _has_dataset(cfg, loader) else ():
            if _is_coco(dataset) and (dataset.get("classes") is None or dataset.get("labels")):
                dataset.labels = list(classes)


def allow_outside(cfg: Config) -> None:
    """Allow image files outside the image folders.

    Raises:
        InputError: a dataset is not a CocoDataset.
    """
    for _, dataset in _coco_datasets(cfg, "--allow-outside"):
        dataset.allow_outside = True


def _coco_datasets(cfg: Config, option: str) -> list[tuple[str, ConfigDict]]:
    """Return the datasets of all dataloaders, also those in wrappers, with the loaders' keys."""
    found = [
        (loader, dataset)
        for loaders in _LOADERS.values()
        for loader in loaders
        if _has_dataset(cfg, loader)
        for dataset in _unwrapped(cfg[loader].dataset)
    ]
    for loader, dataset in found:
        if not _is_coco(dataset):
            raise InputError(
                f"{option} requires data in COCO format, but {loader} has {dataset.get('type')}; "
                "give your data with --train-ann, --train-images, --val-ann and --val-images"
            )
    return found


def _has_dataset(cfg: Config, loader: str) -> bool:
    """Return whether a dataloader has a dataset of its own; see :func:`use_validation`."""
    return "type" in ((cfg.get(loader) or {}).get("dataset") or {})


def _unwrapped(dataset: ConfigDict) -> list[ConfigDict]:
    inner = dataset.get("datasets") or [dataset.get("dataset")]
    return [dataset] if inner[0] is None else [part for d in inner for part in _unwrapped(d)]


def _is_coco(dataset: Mapping[str, Any]) -> bool:
    return str(dataset.get("type", "")).split(".")[-1] == "CocoDataset"


def use_folds(cfg: Config, count: int, key: str | None = None) -> None:
    """Evaluate on folds of the training data: train on all but one of them, evaluate on that one.

    The validation dataset (and that of a test) gets the images of the training dataset, and keeps
    its transforms and options of loading. Fold 0 is selected; a comparison selects the fold of
    each run by its seed.

    Args:
        cfg: the config, changed in place.
        count: number of folds.
        key: entry of the json's images; images with the same value stay in one fold.

    Raises:
        InputError: the training dataset is not a CocoDataset.
    """
    train = cfg.train_dataloader.dataset
    if str(train.get("type", "")).split(".")[-1] != "CocoDataset":
        raise InputError(
            f"--folds requires training data in COCO format, not {train.get('type')}; give it "
            "with --train-ann and --train-images"
        )
    train.folds = ConfigDict(count=count, key=key, index=0)
    for loader in _LOADERS["val"]:
        if _has_dataset(cfg, loader):
            own = {
                key: cfg[loader].dataset.get(key) for key in ("transforms", "cache_mb", "cache_dir")
            }
            kept = {key: value for key, value in own.items() if value is not None}
            shared = {k: v for k, v in copy.deepcopy(train).items() if k not in own}
            cfg[loader].dataset = ConfigDict(**shared, **kept, test_mode=True)


def folds_of(cfg: Config) -> ConfigDict | None:
    """Return the folds on which runs are evaluated: ``count``, ``key`` and ``index``; or None."""
    return cfg.val_dataloader.dataset.get("folds")


def select_fold(cfg: Config, index: int | None) -> None:
    """Select the fold on which the config is evaluated; None: all images. Without folds, nothing.

    Args:
        cfg: the config, changed in place.
        index: a fold; a larger number counts modulo the number of folds.
    """
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        folds = (cfg.get(loader) or {}).get("dataset", {}).get("folds")
        if folds:
            folds.index = None if index is None else index % folds.count


def use_amp(cfg: Config) -> None:
    """Use mixed precision: mmengine's, with a dynamic loss scale, or bfloat16 on a CPU that has it.

    Raises:
        InputError: the config has another optimizer wrapper.
    """
    kind = cfg.optim_wrapper.get("type", "OptimWrapper")
    if kind not in ("OptimWrapper", "AmpOptimWrapper"):
        raise InputError(f"--amp: the config's optim_wrapper is {kind!r}, expected 'OptimWrapper'")
    if kind == "OptimWrapper" and get_device() == "cpu" and cpu_has_bfloat16():
        cfg.optim_wrapper.type = "BFloat16OptimWrapper"
        return
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.setdefault("loss_scale", "dynamic")


def use_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the number of images per step, over all processes.

    Raises:
        InputError: the config does not say which number its learning rate is for.
    """
    if (cfg.get("auto_scale_lr") or {}).get("base_batch_size") is None:
        raise InputError(
            "--auto-scale-lr: the config has no auto_scale_lr.base_batch_size, the images per step "
            "that its learning rate is for; set it with --cfg-options "
            "auto_scale_lr.base_batch_size=16"
        )
    cfg.auto_scale_lr.enable = True


def use_tensorboard(cfg: Config) -> None:
    """Write the scalars for TensorBoard too.

    Raises:
        InputError: TensorBoard is not installed.
    """
    check_tensorboard()
    cfg.setdefault("visualizer", dict(type="Visualizer"))
    backends = entries(cfg.visualizer.get("vis_backends"))
    if all(each.get("type") != "TensorboardVisBackend" for each in backends):
        cfg.visualizer.vis_backends = [*backends, dict(type="TensorboardVisBackend")]


def check_tensorboard() -> None:
    """Check that TensorBoard is installed.

    Raises:
        InputError: it is not.
    """
    if find_spec("tensorboard") is None:
        raise InputError(
            "--tensorboard needs the package tensorboard: pip install 'det-losses[tensorboard]'"
        )


def entries(value: Any) -> list[Any]:
    """Return the entries of a config key that has one entry or a list of them."""
    if not value:
        return []
    return [value] if isinstance(value, Mapping) else list(value)


def use_metric_options(cfg: Config, *, out: str | None, backend: str | None) -> None:
    """Set the result file and the backend of the metric, for a test.

    Raises:
        InputError: the config has several metrics, or ``out`` is a directory.
    """
    if out is not None and Path(out).is_dir():
        raise InputError(f"--out {out}: is a directory, expected a file")
    options = {"out_file": out and str(Path(out).absolute()), "backend": backend}
    given = {key: value for key, value in options.items() if value is not None}
    for key in ("test_evaluator", "val_evaluator"):
        if given and cfg.get(key) is not None:
            if not isinstance(cfg[key], dict):
                raise InputError(
                    f"--out and --backend require a single metric as `{key}`, not a list"
                )
            cfg[key].update(given)


def transforms_of_test(cfg: Config) -> list[Any]:
    """Return the transforms of the dataset that a checkpoint is tested on."""
    loader = cfg.get("test_dataloader") or cfg.get("val_dataloader") or {}
    dataset = loader.get("dataset")
    return list(_unwrapped(dataset)[0].get("transforms") or ()) if dataset else []
