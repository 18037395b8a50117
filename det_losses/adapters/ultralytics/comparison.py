"""A comparison whose runs are trained by ultralytics."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from det_losses.adapters.ultralytics.criterion import SLOTS, build_losses
from det_losses.adapters.ultralytics.training import (
    DETECTIONS_FILE,
    check_arguments,
    check_model,
)
from det_losses.comparison.trainer import Trainer, TrainingRun

_OPTIONS = {"loss_bbox": "--loss", "loss_cls": "--loss-cls", "loss_dfl": "--loss-dfl"}


class UltralyticsTrainer(Trainer):
    """Trains the runs of a comparison by :func:`det_losses.adapters.ultralytics.train`.

    The shipped config ``yolo/yolo11n`` names it. An interrupted run starts again.

    Args:
        model: a yaml of ultralytics, or a local file of weights.
        **ultralytics_args: arguments of ultralytics, such as ``epochs``, ``imgsz`` and ``batch``.
    """

    slots: ClassVar[Sequence[str]] = tuple(_OPTIONS)

    def __init__(self, model: str = "yolo11n.yaml", **ultralytics_args: Any) -> None:
        self._model, self._arguments = model, ultralytics_args

    @property
    def description(self) -> str:
        """The model, and what trains it."""
        return f"{Path(self._model).stem} (ultralytics)"

    def check(self, run: TrainingRun) -> None:
        """Check the installation, the arguments and the losses, without ultralytics' import.

        Raises:
            UserError: one of them cannot be used.
        """
        check_arguments(self._arguments)
        check_model(self._model)
        build_losses({slot: run.losses.get(slot) for slot in SLOTS}, num_classes=1)

    def command(self, run: TrainingRun) -> list[str]:
        """Return the command that trains a run."""
        options = {
            "--model": self._model,
            **{_OPTIONS[slot]: loss for slot, loss in run.losses.items()},
            **run.data_options,
            "--seed": run.seed,
        }
        words = [str(word) for pair in options.items() for word in pair]
        arguments = [f"{name}={value!r}" for name, value in self._arguments.items()]
        return [sys.executable, "-m", "det_losses.adapters.ultralytics", *words, *arguments]

    def detections(self, run: TrainingRun) -> Path:
        """Return the path of the COCO result file."""
        return run.work_dir / DETECTIONS_FILE
