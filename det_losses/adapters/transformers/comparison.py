"""Comparisons whose runs are trained by transformers."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from det_losses.adapters.transformers.losses import build_losses
from det_losses.adapters.transformers.models import read_config
from det_losses.comparison.trainer import Trainer, TrainingRun
from det_losses.errors import InputError


class TransformersTrainer(Trainer):
    """Trains DETR, RT-DETR and D-FINE of transformers: its Trainer, with our losses.

    In a config: ``trainer = dict(type="det_losses.adapters.transformers.comparison:"
    "TransformersTrainer", model="rt_detr_v2_small", epochs=12)``. An interrupted run continues.

    Args:
        model: a small model's name or a folder, as for :func:`train`.
        losses: losses of slots that the comparison does not change.
        image_size: width and height that images are resized to; None: as the image processor says.
        epochs: number of passes over the training images.
        batch_size: per device.
        learning_rate: of AdamW.
        val_interval: also detect after each N epochs, for curves; None: at the end only.
        arguments: further arguments of ``transformers.TrainingArguments``.

    Raises:
        InputError: ``losses`` has an unknown slot.
    """

    slots: ClassVar[Sequence[str]] = ("loss_bbox", "loss_iou", "loss_cls")

    def __init__(
        self,
        model: str,
        losses: Mapping[str, str] | None = None,
        image_size: int | None = None,
        epochs: int = 50,
        batch_size: int = 8,
        learning_rate: float = 1e-4,
        val_interval: int | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        if unknown := sorted(set(losses or {}) - set(self.slots)):
            raise InputError(
                f"losses: no slot {unknown[0]!r}; the slots are {', '.join(self.slots)}"
            )
        self._model = str(Path(model).resolve()) if Path(model).is_dir() else model
        self._losses = dict(losses or {})
        self._options = {
            "--image-size": image_size,
            "--epochs": epochs,
            "--batch-size": batch_size,
            "--learning-rate": learning_rate,
            "--val-interval": val_interval,
            "--arguments": None if arguments is None else json.dumps(arguments),
        }

    @property
    def description(self) -> str:
        """The model, and what trains it."""
        return f"{Path(self._model).name} (transformers)"

    def check(self, run: TrainingRun) -> None:
        """Check the installation, the model and the losses.

        Raises:
            UserError: one of them cannot be used.
        """
        detr = read_config(self._model).model_type == "detr"
        losses = {**self._losses, **run.losses}
        build_losses(losses, "softmax" if detr else "sigmoid", 1, title=Path(self._model).name)

    def command(self, run: TrainingRun) -> list[str]:
        """Return the command that trains a run; it resumes by itself."""
        losses = {**self._losses, **run.losses}
        options = {
            "--model": self._model,
            **{f"--{slot.replace('_', '-')}": loss for slot, loss in losses.items()},
            **run.data_options,
            "--seed": run.seed,
            **self._options,
        }
        words = [f"{name}={value}" for name, value in options.items() if value is not None]
        return [sys.executable, "-m", "det_losses.adapters.transformers", *words]
