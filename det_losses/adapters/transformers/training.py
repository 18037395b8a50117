"""Train a detector of transformers with losses of this package, by transformers' own Trainer."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from det_losses.adapters.transformers.losses import with_losses
from det_losses.adapters.transformers.models import (
    build_model,
    build_processor,
    import_transformers,
)
from det_losses.data.coco import CocoDataset
from det_losses.engine.cpu import keep_freed_memory
from det_losses.errors import InputError
from det_losses.evaluation.result_file import write_detections
from det_losses.models.slots import LossConfig

if TYPE_CHECKING:
    from transformers import (
        BaseImageProcessor,
        PreTrainedConfig,
        PreTrainedModel,
        TrainerCallback,
        TrainingArguments,
    )

DETECTIONS_FILE = "detections.json"
FLIP = ({"type": "RandomHorizontalFlip", "p": 0.5},)
Sample = tuple[Tensor, dict[str, Any]]


def train(
    model: "str | Path | PreTrainedConfig",
    *,
    train_ann: str | Path,
    train_images: str | Path,
    val_ann: str | Path,
    val_images: str | Path,
    work_dir: str | Path,
    loss_bbox: LossConfig = "L1Loss",
    loss_iou: LossConfig = "GIoULoss",
    loss_cls: LossConfig | None = None,
    seed: int = 0,
    image_size: int | None = None,
    epochs: int = 50,
    batch_size: int = 8,
    learning_rate: float = 1e-4,
    val_interval: int | None = None,
    transforms: Sequence[Mapping[str, Any]] = FLIP,
    arguments: Mapping[str, Any] | None = None,
) -> Path:
    """Train, and write the detections on the validation images as a COCO result file.

    A training that was interrupted continues from its last epoch in ``work_dir``. Order and
    augmentation of the images depend on the seed only, not on the losses.

    Args:
        model: ``"detr_small"``, ``"rt_detr_v2_small"``, ``"d_fine_small"``, a config of
            transformers, or a folder as ``save_pretrained`` writes it, with or without weights.
        train_ann: COCO json of the training images.
        train_images: their folder.
        val_ann: COCO json of the images to detect on; its classes are matched by name.
        val_images: their folder.
        work_dir: where everything is written: the result file ``detections.json`` with the ids of
            ``val_ann``, and the trained model in ``model/``.
        loss_bbox: the loss instead of L1, see :func:`with_losses`.
        loss_iou: the loss instead of GIoU.
        loss_cls: the classification loss; None: that of transformers.
        seed: of weights, order of images, augmentation and dropout.
        image_size: width and height that images are resized to; None: as the image processor says.
        epochs: number of passes over the training images.
        batch_size: per device.
        learning_rate: of AdamW.
        val_interval: after each N epochs, write ``detections_STEP.json`` too; None: not.
        transforms: augmentation, see :func:`~det_losses.data.transforms.build_transforms`.
        arguments: further arguments of ``transformers.TrainingArguments``.

    Returns:
        The path of the result file.

    Raises:
        InputError: transformers is not installed, the data or a loss cannot be used, or there is no
            such model.
        InputTypeError: an unknown parameter of a loss.
    """
    transformers = import_transformers()
    keep_freed_memory()
    work_dir = Path(work_dir)
    data = CocoDataset(train_ann, train_images, transforms=transforms)
    classes = data.metainfo["classes"]
    val = CocoDataset(val_ann, val_images, labels=classes)
    options = _training_arguments(
        {
            "output_dir": str(work_dir / "checkpoints"),
            "num_train_epochs": epochs,
            "per_device_train_batch_size": batch_size,
            "learning_rate": learning_rate,
            "seed": seed,
            **(arguments or {}),
        }
    )
    Path(options.output_dir).mkdir(parents=True, exist_ok=True)
    last = transformers.trainer_utils.get_last_checkpoint(options.output_dir)
    # The Trainer of transformers 5.24 restores no tensor whose name in files is another one than in
    # the model, such as those of RT-DETR's layers; from_pretrained does.
    net = build_model(last or model, classes, seed)
    with_losses(net, loss_bbox=loss_bbox, loss_iou=loss_iou, loss_cls=loss_cls)
    folder = model if isinstance(model, (str, Path)) else None
    processor = build_processor(net, folder, image_size)

    def write(name: str) -> Path:
        path = work_dir / name
        write_detections(path, detect(net, processor, val, batch_size))
        return path

    def after_epoch(epoch: int, step: int) -> None:
        if val_interval and epoch % val_interval == 0:
            write(f"detections_{step}.json")

    trainer = transformers.Trainer(
        model=net,
        args=options,
        train_dataset=data,
        data_collator=lambda samples: collate(processor, samples),
        callbacks=[_callback(data, seed, _unused(net.loss_function.losses), after_epoch)],
    )
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(str(work_dir / "model"))
    processor.save_pretrained(str(work_dir / "model"))
    path = write(DETECTIONS_FILE)
    shutil.rmtree(options.output_dir, ignore_errors=True)
    return path


def collate(processor: "BaseImageProcessor", samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what a model's ``forward`` takes: processed images, and labels with boxes."""
    annotations = []
    for _, target in samples:
        corners = target["boxes"]
        boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
        entries = [
            {"bbox": box, "category_id": label, "area": box[2] * box[3], "iscrowd": 0}
            for box, label in zip(boxes.tolist(), target["labels"].tolist(), strict=True)
        ]
        annotations.append({"image_id": target["image_id"], "annotations": entries})
    return dict(_processed(processor, samples, annotations=annotations))


@torch.no_grad()
def detect(
    model: "PreTrainedModel",
    processor: "BaseImageProcessor",
    dataset: CocoDataset,
    batch_size: int = 8,
) -> np.ndarray:
    """Detect on all images of a dataset, without a threshold.

    Returns:
        ``[N, 7]``: image id, x, y, width, height (pixels), score, category id of the json.
    """
    was_training = model.training
    model.eval()
    category_ids = torch.tensor(dataset.metainfo["category_ids"], dtype=torch.float64)
    rows = []
    for samples in DataLoader(dataset, batch_size, collate_fn=list):
        inputs = _processed(processor, samples).to(model.device)
        sizes = [tuple(image.shape[-2:]) for image, _ in samples]
        found = processor.post_process_object_detection(
            model(**inputs), threshold=0.0, target_sizes=torch.tensor(sizes, device=model.device)
        )
        for (_, target), each in zip(samples, found, strict=True):
            boxes = each["boxes"].double().cpu()
            ids = torch.full((len(boxes), 1), float(target["image_id"]), dtype=torch.float64)
            scores = each["scores"].double().cpu().unsqueeze(1)
            categories = category_ids[each["labels"].cpu()].unsqueeze(1)
            size = boxes[:, 2:] - boxes[:, :2]
            rows.append(torch.cat([ids, boxes[:, :2], size, scores, categories], dim=1))
    model.train(was_training)
    return torch.cat(rows).numpy()


def _processed(
    processor: "BaseImageProcessor", samples: Sequence[Sample], **inputs: Any
) -> Mapping[str, Any]:
    images = [image for image, _ in samples]
    return processor(images, return_tensors="pt", input_data_format="channels_first", **inputs)


def _training_arguments(given: Mapping[str, Any]) -> "TrainingArguments":
    """Return the arguments of the Trainer: DETR's optimiser, and nothing over the network."""
    arguments = {
        "weight_decay": 1e-4,
        "max_grad_norm": 0.1,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "logging_strategy": "epoch",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        **given,
    }
    try:
        return import_transformers().TrainingArguments(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"arguments of the Trainer: {error}") from error


def _unused(losses: nn.ModuleDict) -> set[str]:
    """Return the names of the losses; each is removed when it is called."""
    names = set(losses)
    for name, loss in losses.items():
        loss.register_forward_hook(lambda *_, name=name: names.discard(name))
    return names


def _callback(
    data: CocoDataset, seed: int, unused: set[str], after_epoch: Callable[[int, int], None]
) -> "TrainerCallback":
    transformers = import_transformers()

    class Epochs(transformers.TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            data.set_epoch(round(state.epoch), seed)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if unused:
                raise InputError(
                    f"{', '.join(sorted(unused))} was not called in the first step, so "
                    f"transformers {transformers.__version__} computes losses in another way"
                )

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            after_epoch(round(state.epoch), state.global_step)

    return Epochs()
