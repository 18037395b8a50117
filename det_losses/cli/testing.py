"""Making a config and a checkpoint ready for a test."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from det_losses.engine.checks import shortened
from det_losses.errors import InputError


def prepare_test(cfg: Config, *, out: str | None, backend: str | None) -> None:
    """Set the options of the metric.

    Raises:
        InputError: the config has several metrics, so that it is open which one is meant.
    """
    options = {"out_file": out and str(Path(out).absolute()), "backend": backend}
    given = {key: value for key, value in options.items() if value is not None}
    for key in ("test_evaluator", "val_evaluator"):
        if given and cfg.get(key) is not None:
            if not isinstance(cfg[key], dict):
                raise InputError(f"--out and --backend need one metric as `{key}`, not a list")
            cfg[key].update(given)


def load_checkpoint(runner: Runner, path: Path) -> None:
    """Load a checkpoint strictly, and check that it was trained on the same classes.

    Raises:
        InputError: it is no checkpoint, of another model, or of other classes.
    """
    try:
        meta = torch.load(path, map_location="cpu", weights_only=True).get("meta", {})
    except Exception as error:
        raise InputError(
            f"{path} is no checkpoint, or one that holds more than tensors and plain values "
            f"({type(error).__name__} from torch.load with weights_only=True)"
        ) from error
    trained = (meta.get("dataset_meta") or {}).get("classes")
    classes = runner.test_loop.dataloader.dataset.metainfo["classes"]
    if trained is not None and list(trained) != list(classes):
        raise InputError(
            f"checkpoint {path} was trained on the classes {shortened(trained, most=6)}, "
            f"and the data has {shortened(classes, most=6)}"
        )
    try:
        runner.load_checkpoint(str(path), map_location="cpu", strict=True)
    except RuntimeError as error:
        raise InputError(f"checkpoint {path} does not fit the config's model: {error}") from error
