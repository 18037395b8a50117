"""Export of a checkpoint to ONNX, compared with PyTorch on the spot."""

import importlib
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from det_losses.errors import ExistingFileError, InputError
from det_losses.files import write_bytes
from det_losses.inference.trained import TrainedDetector

OPSET = 17
OUTPUTS = ("boxes", "scores", "labels")
_TRACED = (3, 224, 288)  # shape of the image that the model is traced with
BOX_TOLERANCE, SCORE_TOLERANCE = 0.1, 1e-3  # pixels; scores


@dataclass(frozen=True)
class Agreement:
    """How the ONNX file's detections on an image differ from PyTorch's.

    Attributes:
        boxes: number of boxes by PyTorch and by ONNX Runtime.
        box_difference: largest absolute difference of a coordinate of matched boxes, pixels.
        score_difference: largest absolute difference of a score.
    """

    boxes: tuple[int, int]
    box_difference: float
    score_difference: float

    @property
    def holds(self) -> bool:
        """Whether the same boxes were found, within the tolerances."""
        same = self.boxes[0] == self.boxes[1]
        close = self.box_difference <= BOX_TOLERANCE and self.score_difference <= SCORE_TOLERANCE
        return same and close


class _OneImage(nn.Module):
    """The detector as a function of one image with several outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.model([image], mode="predict")[0]
        return tuple(found[name] for name in OUTPUTS)


def export_onnx(detector: TrainedDetector, path: str | Path, *, opset: int = OPSET) -> None:
    """Write a detector as an ONNX file.

    Input ``image``: uint8 ``[3, height, width]``, RGB, one image of any size; resizing and
    normalisation are part of the file. Outputs: ``boxes`` (float32 ``[n, 4]``, xyxy, pixels of the
    input), ``scores`` (float32 ``[n]``, descending) and ``labels`` (int64 ``[n]``). The thresholds
    are those of the config. The metadata ``classes`` is a json list of the class names by label.

    Args:
        detector: from :func:`~det_losses.inference.load_detector`, on the CPU.
        path: the new file.
        opset: version of ONNX's operators, 16 to 20.

    Raises:
        ExistingFileError: the file exists.
        InputError: onnx or onnxruntime is missing, or the model cannot be exported.
    """
    onnx = _import("onnx")
    if Path(path).exists():
        raise ExistingFileError(f"{path} exists and is not overwritten; give another --out")
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, _TRACED, generator=generator).to(torch.uint8)
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # torchvision's own code warns about what it traces on purpose. The exporter based on
        # torch.export cannot follow its loops over data, so the one based on tracing is used.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                _OneImage(detector.model).eval(),
                (image,),
                buffer,
                dynamo=False,
                opset_version=opset,
                input_names=["image"],
                output_names=list(OUTPUTS),
                dynamic_axes={"image": {1: "height", 2: "width"}}
                | {name: {0: "n"} for name in OUTPUTS},
            )
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"the model cannot be exported to ONNX: {reason}") from error
    model = onnx.load_from_string(buffer.getvalue())
    entry = model.metadata_props.add()
    entry.key, entry.value = "classes", json.dumps(detector.classes, ensure_ascii=False)
    write_bytes(path, model.SerializeToString())


def pattern(height: int = 240, width: int = 320) -> Tensor:
    """Return an image of coloured rectangles, uint8 ``[3, height, width]``."""
    generator = torch.Generator().manual_seed(0)
    image = torch.full((3, height, width), 110, dtype=torch.uint8)
    for _ in range(12):
        x, y, w, h = (torch.rand(4, generator=generator) * 0.7 * width).int().tolist()
        colour = torch.randint(256, (3, 1, 1), generator=generator).to(torch.uint8)
        image[:, y : y + h + 8, x : x + w // 2 + 8] = colour
    return image


def compare_onnx(detector: TrainedDetector, path: str | Path, image: Tensor) -> Agreement:
    """Compare an ONNX file with its detector on an image.

    Boxes are matched by position and class, because boxes of equal score have no order.

    Args:
        detector: from which the file was exported.
        path: the file.
        image: uint8 ``[3, H, W]``.

    Raises:
        InputError: onnxruntime is missing.
    """
    with torch.no_grad():
        ours = detector.model([image.to(detector.device)], mode="predict")[0]
    expected = {name: ours[name].cpu().numpy() for name in OUTPUTS}
    session = _import("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"image": image.numpy()}), strict=True))
    return _agreement(expected, found)


def _agreement(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> Agreement:
    counts = len(expected["boxes"]), len(found["boxes"])
    if 0 in counts:
        return Agreement(counts, 0.0, 0.0)
    distance = np.abs(expected["boxes"][:, None] - found["boxes"][None]).max(-1)
    score = np.abs(expected["scores"][:, None] - found["scores"][None])
    other_class = expected["labels"][:, None] != found["labels"][None]
    matched = linear_sum_assignment(distance + score + 1e6 * other_class)
    box_difference = (distance + 1e6 * other_class)[matched].max()
    return Agreement(counts, float(box_difference), float(score[matched].max()))


def check_packages() -> None:
    """Raise InputError if a package of an export is missing."""
    for package in ("onnx", "onnxruntime"):
        _import(package)


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"an export to ONNX needs {package}: pip install 'det-losses[export]'"
        ) from error
