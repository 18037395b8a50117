"""The folder of a prediction: drawn pictures, videos and a json in COCO format."""

import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from det_losses.errors import ExistingFileError, InputError
from det_losses.files import write_bytes, write_json
from det_losses.inference.drawing import draw
from det_losses.inference.sources import frame_rate
from det_losses.inference.trained import TrainedDetector

JSON_FILE = "predictions.json"
_LEGIBLE = 320  # smaller images are enlarged to this size, in pixels
_KEPT = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # formats that a picture is saved in


def new_folder(out: str | Path | None) -> Path:
    """Create the folder of a prediction.

    Args:
        out: the folder; None: the first number in ``work_dirs/predict`` that does not exist.

    Raises:
        ExistingFileError: ``out`` exists and is not an empty folder.
    """
    if out is None:
        parent = Path("work_dirs", "predict")
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            try:
                (parent / str(number)).mkdir()
            except FileExistsError:
                number += 1
            else:
                return parent / str(number)
    folder = Path(out)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ExistingFileError(
            f"--out {folder}: exists and is not an empty folder, and nothing is overwritten; give "
            "another one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Output:
    """Writes pictures and videos as they come, and the json at the end, also after an error.

    Args:
        folder: of all files.
        files: the files of the prediction; names in the json and of the pictures are relative to
            the innermost folder that contains all of them.
        detector: its classes and category ids go into the json.
        pictures: whether to draw pictures and videos.
    """

    def __init__(
        self, folder: Path, files: Iterable[Path], detector: TrainedDetector, pictures: bool = True
    ) -> None:
        self.folder, self._pictures = folder, pictures
        self._root = os.path.commonpath([os.path.abspath(file.parent) for file in files])
        self._classes = dict(zip(detector.category_ids, detector.classes, strict=True))
        self._ids = detector.category_ids
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self._video: tuple[Path, Path, cv2.VideoWriter] | None = None  # source, file, writer
        self._frames = 0  # of this video

    def __enter__(self) -> "Output":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        categories = [{"id": i, "name": name} for i, name in self._classes.items()]
        content = {
            "info": {"description": "predictions of det_losses", "image_dir": self._root},
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
        write_json(self.folder / JSON_FILE, content)
        self._end_video(is_whole=error is None)

    def add(self, image: Tensor, detection: Mapping[str, Any]) -> None:
        """Add the detections of an image file or of a frame of a video.

        Raises:
            InputError: a video cannot be written.
        """
        name = os.path.relpath(os.path.abspath(detection["file"]), self._root)
        width, height = detection["size"]
        entry = {
            "id": len(self.images) + 1,
            "file_name": Path(name).as_posix(),
            "width": width,
            "height": height,
        }
        if detection["frame"] is not None:
            entry["frame"] = detection["frame"]
        self.images.append(entry)
        self.annotations += _annotations(
            detection, entry["id"], len(self.annotations) + 1, self._ids
        )
        if self._pictures:
            scale = math.ceil(_LEGIBLE / max(image.shape[1:]))
            drawn = draw(image, dict(detection), scale=scale)
            if detection["frame"] is None:
                self._save(drawn, name)
            else:
                self._write_frame(drawn, detection["file"], name)

    def _save(self, image: Tensor, name: str) -> None:
        if not name.lower().endswith(_KEPT):
            name += ".png"
        suffix, content = Path(name).suffix.lower(), io.BytesIO()
        options = {"quality": 92} if suffix in (".jpg", ".jpeg", ".webp") else {}
        to_pil_image(image).save(content, Image.registered_extensions()[suffix], **options)
        write_bytes(self.folder / name, content.getvalue())

    def _write_frame(self, image: Tensor, file: Path, name: str) -> None:
        if self._video is None or self._video[0] != file:
            self._end_video()
            path = self.folder / (name if name.lower().endswith(".mp4") else f"{name}.mp4")
            path.parent.mkdir(parents=True, exist_ok=True)
            size = (image.shape[2], image.shape[1])
            code = cv2.VideoWriter_fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(path), code, frame_rate(file), size)
            if not writer.isOpened():
                raise InputError(f"{path}: this video cannot be written")
            self._video, self._frames = (file, path, writer), 0
        self._frames += 1
        self._video[2].write(image.flip(0).permute(1, 2, 0).contiguous().numpy())

    def _end_video(self, is_whole: bool = True) -> None:
        """Complete the video; OpenCV does not report what it could not write."""
        if self._video is None:
            return
        _, path, writer = self._video
        self._video = None
        writer.release()
        found = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)
        if is_whole and found != self._frames:
            path.unlink(missing_ok=True)
            raise InputError(f"{path}: this video could not be written; is the disk full?")


def _annotations(
    detection: Mapping[str, Any], image_id: int, first: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the entries of one image, with ids from ``first`` on."""
    rows = zip(
        detection["boxes"].tolist(),
        detection["scores"].tolist(),
        detection["labels"].tolist(),
        detection["names"],
        strict=True,
    )
    return [
        {
            "id": first + number,
            "image_id": image_id,
            "category_id": category_ids[label],
            "category_name": name,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "score": score,
            "iscrowd": 0,
        }
        for number, ((x1, y1, x2, y2), score, label, name) in enumerate(rows)
    ]
