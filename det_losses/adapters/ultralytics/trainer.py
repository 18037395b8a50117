"""ultralytics' own trainer and validator, with other losses and COCO ids. Needs ultralytics."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.utils import ops
from ultralytics.utils.torch_utils import strip_optimizer, unwrap_model

from det_losses.adapters.ultralytics.criterion import LossConfig, share_losses, use_losses
from det_losses.adapters.ultralytics.layout import Layout, Split
from det_losses.errors import InputError, counted, examples


class CocoValidator(DetectionValidator):
    """ultralytics' validator, which also keeps the detections of the final evaluation.

    Attributes:
        layout: the data, set by the trainer.
        found: of each batch, rows of image id, x, y, width, height (pixels), score, category id.
    """

    layout: Layout
    found: list[np.ndarray]

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Start an evaluation."""
        super().init_metrics(model)
        self.found = []

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Add a batch."""
        super().update_metrics(preds, batch)
        for index, pred in enumerate([] if self.training else preds):
            image = self._prepare_batch(index, batch)
            scaled = self.scale_preds(self._prepare_pred(pred), image)
            boxes = ops.xyxy2ltwh(scaled["bboxes"]).double().cpu().numpy()
            ids = np.array(self.layout.category_ids)[scaled["cls"].long().cpu().numpy()]
            image_id = np.full(len(boxes), self._image_id(image["im_file"]))
            score = scaled["conf"].double().cpu().numpy()
            self.found.append(np.column_stack([image_id, boxes, score, ids]))

    def _image_id(self, file: str) -> int:
        val = self.layout.splits["val"]
        return val.dataset.image_ids[val.stems[_stem(file)]]


class LossTrainer(DetectionTrainer):
    """ultralytics' trainer with losses of this package.

    The weights of the last epoch are evaluated. ultralytics evaluates those of the best epoch,
    which it has chosen on the same images, so that their AP is too high.

    Args:
        overrides: ultralytics' arguments.
        layout: the data.
        losses: arguments of :func:`use_losses`.
    """

    def __init__(
        self, overrides: dict[str, Any], layout: Layout, losses: dict[str, LossConfig | None]
    ) -> None:
        super().__init__(overrides=overrides)
        self.layout, self._losses = layout, losses
        self.used: list[torch.nn.ModuleDict] = []
        self.add_callback("on_pretrain_routine_end", LossTrainer._begin)

    def _begin(self) -> None:
        """Check what was loaded and replace the losses, after the model has been set up."""
        for name, loader in (("train", self.train_loader), ("val", self.test_loader)):
            _check_images(name, self.layout.splits[name], loader.dataset.im_files)
        model = unwrap_model(self.model)
        head = type(model.model[-1]).__name__
        if head not in ("Detect", "v10Detect"):
            raise InputError(f"{self.args.model}: a detection model is needed, its head is {head}")
        self.used = use_losses(model, **self._losses)
        share_losses(model, self.ema.ema)

    def get_validator(self) -> CocoValidator:
        """Return the validator that keeps detections."""
        plain = super().get_validator()
        validator = CocoValidator(
            plain.dataloader, save_dir=plain.save_dir, args=plain.args, _callbacks=plain.callbacks
        )
        validator.layout = self.layout
        return validator

    def final_eval(self) -> None:
        """Evaluate the weights of the last epoch."""
        for file in (self.best, self.last):
            strip_optimizer(file)
        self.validator.args.plots = self.args.plots
        self.metrics = self.validator(model=self.last)
        self.metrics.pop("fitness", None)

    @property
    def detections(self) -> np.ndarray:
        """The detections of the final evaluation, ``[N, 7]`` as for ``write_detections``."""
        return np.concatenate([np.empty((0, 7)), *self.validator.found])


def _check_images(name: str, split: Split, loaded: Iterable[str]) -> None:
    """Raise unless ultralytics uses every image."""
    stems = set(map(_stem, loaded))
    files = split.dataset.image_files
    missing = [files[row] for stem, row in split.stems.items() if stem not in stems]
    if missing:
        raise InputError(
            f"{name}: ultralytics leaves out {counted(len(missing), 'image')} (smaller than 10 "
            f"pixels, or a format that it does not read): {examples(missing)}"
        )


def _stem(file: str) -> str:
    return file.rpartition("/")[2].rpartition(".")[0]
