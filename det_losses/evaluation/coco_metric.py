"""COCO's evaluation as a metric of mmengine's Runner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from det_losses.errors import InputError, counted
from det_losses.evaluation.backends import BACKENDS
from det_losses.evaluation.ground_truth import ground_truth_json
from det_losses.evaluation.metrics import MAX_DETS
from det_losses.evaluation.result_file import write_detections
from det_losses.evaluation.summary import coco_numbers, count_boxes, format_table
from det_losses.registry import METRICS


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """AP and AR of boxes as defined by COCO.

    The ground truth comes from the batches (``targets[i]["coco"]``, which a dataset in test mode
    provides), so it always has exactly the evaluated images and classes. An image that is evaluated
    twice, as with a padded distributed sampler, counts once. Crowds match any number of detections,
    which are then ignored. The area is that of the annotation.

    Args:
        backend: ``"hotcoco"``, or the reference ``"pycocotools"``; both compute the same numbers.
        out_file: Write the detections to this file as a COCO result json, with the official
            category ids. Relative to the working directory; in a config, to the run's work_dir.
        max_dets: Maximum number of detections per image and class, at least 11; 100 in COCO.
        collect_device: Device for gathering the ranks' results, see mmengine's BaseMetric.
        prefix: Prefix of the names of the metrics, as in ``prefix/AP``.
        collect_dir: Folder for collecting results of several processes.

    Raises:
        InputError: Unknown backend, ``max_dets`` too small, or a batch or prediction that cannot
            be evaluated.
    """

    default_prefix = ""  # mmengine warns about None

    def __init__(
        self,
        backend: str = "hotcoco",
        out_file: str | None = None,
        max_dets: int = MAX_DETS,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if backend not in BACKENDS:
            raise InputError(
                f"CocoMetric: backend must be one of {list(BACKENDS)}, got {backend!r}"
            )
        if not isinstance(max_dets, int) or max_dets <= 10:
            raise InputError(f"CocoMetric: max_dets must be greater than 10, got {max_dets!r}")
        self.backend, self.out_file, self.max_dets = backend, out_file, (1, 10, max_dets)

    def process(
        self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Any]]
    ) -> None:
        """Store ground truth and predictions of a batch.

        Args:
            data_batch: its ``targets`` contain ``coco``: ``image`` and ``annotations`` of the json.
            data_samples: for each image ``boxes`` (``[n, 4]``, xyxy, pixels of the json's image),
                ``scores`` and ``labels`` (``[n]``, 0..K-1).
        """
        category_ids = np.array(self._meta("category_ids"))
        for target, prediction in zip(data_batch["targets"], data_samples, strict=True):
            if "coco" not in target:
                raise InputError(
                    "CocoMetric needs the ground truth as targets[i]['coco']: build the evaluated "
                    "dataset with test_mode=True"
                )
            truth = target["coco"]
            rows = _detection_rows(truth["image"]["id"], prediction, category_ids)
            self.results.append(_Evaluated(truth, rows))

    def compute_metrics(self, results: list["_Evaluated"]) -> dict[str, float]:
        """Compute the numbers of :func:`~det_losses.evaluation.summary.coco_numbers`; log a table.

        Args:
            results: the results of :meth:`process` from all ranks.
        """
        images = {result.truth["image"]["id"]: result for result in reversed(results)}
        results = [images[image_id] for image_id in sorted(images)]
        classes = dict(zip(self._meta("category_ids"), self._meta("classes"), strict=True))
        truth = ground_truth_json([result.truth for result in results], classes)
        detections = np.concatenate([np.empty((0, 7)), *(r.detections for r in results)])
        if self.out_file is not None:
            write_detections(self.out_file, detections)
        curves = BACKENDS[self.backend](truth, detections, self.max_dets)
        ascending = [classes[category_id] for category_id in sorted(classes)]
        numbers = coco_numbers(curves, ascending, self.max_dets)
        counts = count_boxes(truth["annotations"], classes)
        found = counted(len(detections), "detection")
        title = f"Evaluated {counted(len(results), 'image')}, {found} ({self.backend})"
        print_log(format_table(numbers, counts, title), logger="current")
        return numbers

    def _meta(self, key: str) -> Sequence[Any]:
        if not self.dataset_meta or key not in self.dataset_meta:
            raise InputError(
                f"CocoMetric needs dataset.metainfo with 'classes' and 'category_ids'; {key!r} is "
                f"missing in {self.dataset_meta!r}"
            )
        return self.dataset_meta[key]


@dataclass(frozen=True, eq=False)
class _Evaluated:
    """An evaluated image. Not a dict, through which mmengine would go entry by entry.

    Attributes:
        truth: ``image`` and ``annotations`` of the json.
        detections: ``[n, 7]``: image id, x, y, w, h, score, category id.
    """

    truth: Mapping[str, Any]
    detections: np.ndarray


def _detection_rows(
    image_id: int, prediction: Mapping[str, Any], category_ids: np.ndarray
) -> np.ndarray:
    """Convert a prediction to rows ``[n, 7]``: image id, x, y, w, h, score, category id."""
    if prediction.get("image_id", image_id) != image_id:
        raise InputError(
            f"predictions are not in the order of the batch: image {image_id} got those of "
            f"image {prediction['image_id']}"
        )
    boxes, scores = _numpy(prediction["boxes"]), _numpy(prediction["scores"])
    labels = _numpy(prediction["labels"]).astype(np.int64)
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise InputError(f"image {image_id}: a predicted box or score is NaN or infinite")
    if labels.size and not 0 <= labels.min() <= labels.max() < len(category_ids):
        raise InputError(
            f"image {image_id}: predicted labels must be in 0..{len(category_ids) - 1}, got "
            f"{labels.min()}..{labels.max()}"
        )
    corners, sizes = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    ids = np.full_like(scores, image_id)
    return np.column_stack([ids, corners, sizes, scores, category_ids[labels]])


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().to("cpu", torch.float64).numpy()
