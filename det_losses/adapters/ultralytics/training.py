"""Train a YOLO model of ultralytics on COCO data with losses of this package."""

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import yaml
from torch import nn

from det_losses.adapters.ultralytics.criterion import INSTALL, LossConfig
from det_losses.adapters.ultralytics.layout import Layout, write_layout
from det_losses.engine.cpu import keep_freed_memory
from det_losses.errors import (
    InputError,
    InputTypeError,
    MissingFileError,
    did_you_mean,
    one_line,
)
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import match
from det_losses.evaluation.result_file import write_detections
from det_losses.evaluation.summary import ap_numbers

if TYPE_CHECKING:
    from det_losses.adapters.ultralytics.trainer import LossTrainer

OLDEST = (8, 4, 190)  # the oldest version of ultralytics that is tested
DETECTIONS_FILE = "predictions.json"
DATA_FOLDER = "ultralytics_data"
CONFIG_FOLDER = "ultralytics_config"
# Arguments of ultralytics that would contradict those of `train`.
_OWN: Mapping[str, str] = {
    "data": "give train_ann and val_ann",
    "fraction": "give a smaller train_ann",
    "classes": "give a train_ann with these classes",
    "single_cls": "give a train_ann with one class",
    "project": "give work_dir",
    "name": "give work_dir",
    "exist_ok": "give work_dir",
    "save_dir": "give work_dir",
    "resume": "an interrupted run starts again, because ultralytics does not restore its random "
    "numbers",
    "task": "only detection models are supported",
    "mode": "it is always train",
    "save_json": f"{DETECTIONS_FILE} is always written",
    "split": "val_ann is evaluated",
}


@dataclass(frozen=True)
class Trained:
    """What a training leaves.

    Attributes:
        detections: COCO result file on all images of ``val_ann``, with its ids.
        checkpoint: weights of the last epoch, an ordinary checkpoint of ultralytics.
        metrics: ``AP``, ``AP50``, ... and the AP of each class, 0 to 100, NaN without boxes.
    """

    detections: Path
    checkpoint: Path
    metrics: dict[str, float]


def train(
    model: str | Path = "yolo11n.yaml",
    loss: LossConfig | None = None,
    *,
    train_ann: str | Path,
    train_images: str | Path,
    val_ann: str | Path,
    val_images: str | Path,
    work_dir: str | Path,
    seed: int = 0,
    loss_cls: LossConfig | None = None,
    loss_dfl: LossConfig | None = None,
    **ultralytics_args: Any,
) -> Trained:
    """Train a YOLO model by ultralytics' own trainer, with another box loss.

    Augmentation, assignment of targets, optimizer and schedule are ultralytics'. The weights of the
    last epoch are evaluated on all images of ``val_ann``. Nothing is downloaded or sent, and the
    user's settings of ultralytics do not change. On the same machine, the seed makes a training
    reproducible.

    Args:
        model: a yaml of ultralytics, such as ``"yolov8n.yaml"``, ``"yolo11n.yaml"`` or
            ``"yolo26n.yaml"``, or a local file of weights (``.pt``).
        loss: the box loss instead of CIoU: a name, a call such as ``"InnerIoU(CIoULoss,
            ratio=0.7)"``, or a config; None: ultralytics'. See
            :func:`~det_losses.adapters.ultralytics.use_losses`.
        train_ann: COCO json of the training images.
        train_images: the folder of these images, which are not copied.
        val_ann: COCO json of the images that are evaluated.
        val_images: the folder of these images.
        work_dir: gets the result file, the checkpoints and ultralytics' own files.
        seed: random seed.
        loss_cls: the classification loss instead of binary cross-entropy.
        loss_dfl: the loss of the distributions instead of DFL.
        **ultralytics_args: arguments of ultralytics, such as ``epochs=100, imgsz=640, batch=16``.

    Raises:
        MissingFileError: a file or folder does not exist.
        InputError: a loss does not fit, the data are not valid, or an argument cannot be used.
        InputTypeError: ultralytics has no such argument.
    """
    work_dir = Path(work_dir).absolute()
    losses = {"loss_bbox": loss, "loss_cls": loss_cls, "loss_dfl": loss_dfl}
    check_arguments(ultralytics_args)
    check_model(model)
    with offline(work_dir / CONFIG_FOLDER):
        overrides = {
            "plots": False,
            **ultralytics_args,
            "model": str(model),
            "seed": seed,
            "task": "detect",
            "project": str(work_dir.parent),
            "name": work_dir.name,
            "exist_ok": True,
        }
        layout = write_layout(work_dir / DATA_FOLDER, train_ann, train_images, val_ann, val_images)
        keep_freed_memory()
        trainer = _new_trainer({**overrides, "data": str(layout.data)}, layout, losses)
        trainer.train()
    _check_calls(trainer.used)
    file = work_dir / DETECTIONS_FILE
    write_detections(file, trainer.detections)
    truth = GroundTruth(val_ann)
    numbers = ap_numbers(match(truth, trainer.detections).average_precision(), truth.names)
    return Trained(file, trainer.last, {name: 100 * float(n) for name, n in numbers.items()})


@contextlib.contextmanager
def offline(folder: Path) -> Iterator[None]:
    """Import ultralytics and keep it from downloading, sending or changing anything.

    Args:
        folder: for ultralytics' settings, if this imports it for the first time.

    Raises:
        InputError: ultralytics is not installed, or is a version without what is needed here.
    """
    check_arguments({})
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        "YOLO_CONFIG_DIR": str(folder),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "ULTRALYTICS_API_KEY": "",
    }
    with mock.patch.dict(os.environ, environment):
        try:
            from ultralytics.engine import trainer
            from ultralytics.utils import SETTINGS, events

            import det_losses.adapters.ultralytics.trainer  # noqa: F401  # finds what it needs
        except ImportError as error:
            raise InputError(
                f"this version of ultralytics cannot be used ({one_line(error)}): {INSTALL}"
            ) from error
        _add_font(folder)
        stored = dict(SETTINGS)
        quiet = {name: False for name, value in stored.items() if value is True}
        # dict.update changes the settings in memory only; their own method writes the file.
        dict.update(SETTINGS, quiet, api_key="")
        try:
            with (
                mock.patch.object(events.events, "enabled", False),
                # Its own check of mixed precision downloads weights.
                mock.patch.object(trainer, "check_amp", _uses_amp),
            ):
                yield
        finally:
            dict.update(SETTINGS, stored)


def _uses_amp(model: nn.Module) -> bool:
    return next(model.parameters()).device.type not in ("cpu", "mps")


def _add_font(folder: Path) -> None:
    """Let matplotlib know a font by the name of Arial, which ultralytics downloads otherwise."""
    from matplotlib import font_manager, get_data_path

    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        if not any(name in entry.fname for entry in font_manager.fontManager.ttflist):
            file = folder / name
            shutil.copyfile(Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf"), file)
            font_manager.fontManager.addfont(file)


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check ultralytics' arguments, without its import.

    Raises:
        InputError: ultralytics is not installed, or an argument has no effect here.
        InputTypeError: ultralytics has no such argument.
        MissingFileError: a file of weights does not exist.
    """
    known = yaml.safe_load((_package() / "cfg/default.yaml").read_text(encoding="utf-8"))
    for name, value in arguments.items():
        if name in _OWN:
            raise InputError(f"{name}={value!r}: {_OWN[name]}")
        if name not in known:
            raise InputTypeError(
                f"ultralytics has no argument {name!r}. {did_you_mean(name, known)}"
            )
    for name in ("pretrained", "distill_model"):
        value = arguments.get(name)
        if isinstance(value, (str, Path)) and not Path(value).is_file():
            raise MissingFileError(f"{name} {value}: no such file, and nothing is downloaded")
    device = str(arguments.get("device", ""))
    if "," in device:
        raise InputError(f"device={device!r}: a run trains on one device")


def check_model(model: str | Path) -> None:
    """Check that a model is a local file, or a yaml of ultralytics with the letter of its scale.

    Raises:
        MissingFileError: it is neither.
    """
    if Path(model).is_file():
        return
    name = Path(model).name
    bases = {name, re.sub(r"(\d+)[nslmx]", r"\1", name)}
    known = {file.name for file in (_package() / "cfg/models").rglob("*.yaml")}
    if not bases & known:
        raise MissingFileError(
            f"model {model}: no such file, and nothing is downloaded. Models of ultralytics are "
            "yolov8n.yaml, yolo11n.yaml, yolo26n.yaml and others"
        )


def _package() -> Path:
    """Return the folder of ultralytics, whose import has side effects.

    Raises:
        InputError: it is not installed, or is older than :data:`OLDEST`.
    """
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None:
        raise InputError(f"ultralytics is not installed: {INSTALL}")
    version = importlib.metadata.version("ultralytics")
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise InputError(f"ultralytics {version} is too old, {oldest} is needed: {INSTALL}")
    return Path(spec.origin).parent


def _new_trainer(
    overrides: dict[str, Any], layout: Layout, losses: dict[str, LossConfig | None]
) -> "LossTrainer":
    """Return the trainer; ultralytics' errors about values of arguments become InputErrors."""
    from det_losses.adapters.ultralytics.trainer import LossTrainer

    try:
        return LossTrainer(overrides, layout, losses)
    except (TypeError, ValueError, SyntaxError) as error:
        raise InputError(f"ultralytics: {one_line(error)}") from error


def _check_calls(used: Sequence[nn.ModuleDict]) -> None:
    """Raise if a loss was not called, as in a version of ultralytics with another criterion."""
    for losses in used:
        for name, loss in losses.items():
            if not loss.calls:
                raise RuntimeError(f"{name}: the criterion of ultralytics did not call {loss}")
