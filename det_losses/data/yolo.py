"""Data in YOLO layout: a data.yaml, and a label file for each image."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from det_losses.data.coco_json import CocoDict
from det_losses.data.images import upright_size
from det_losses.errors import (
    InputError,
    MissingFileError,
    agreed,
    counted,
    did_you_mean,
    examples,
    one_line,
)

_IMAGES = (".bmp", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
_ALSO = {"val": ("val", "validation", "valid")}  # keys of a split
_BEYOND = 0.01  # by which a fraction may be below 0 or above 1: labels are rounded


class YoloSplit:
    """The images and labels of one split, found but not read.

    Args:
        file: the yaml: ``path`` (of the data; default: the folder of the yaml), ``names`` (a list
            or a dict) or ``nc``, and for each split a folder of images, a text file that lists
            images, or a list of these.
        split: ``"train"`` or ``"val"``.

    Attributes:
        image_dir: the folder that contains all images of the split.
        files: the files that the result of :meth:`coco` depends on.
        target: where the COCO json of this split belongs.

    Raises:
        MissingFileError: the yaml, a folder, a list or an image of a list is missing.
        InputError: the yaml cannot be read, or has no such split.
    """

    def __init__(self, file: Path, split: str) -> None:
        self._file = file
        content = _read_yaml(file)
        self._names = _names(content, file)
        self._keypoints = "kpt_shape" in content
        self._lists: list[Path] = []
        found = [*_images(content, file, split, self._lists)]
        self._images = [*dict.fromkeys(found)]
        self._repeated = len(found) - len(self._images)
        self.image_dir = Path(os.path.commonpath([image.parent for image in self._images]))
        self._labels = [label_file(image) for image in self._images]
        self.files = [file, *self._lists, *self._images, *self._labels]
        self.target = file.with_name(f"{file.stem}.{split}.coco.json")

    def coco(self) -> tuple[CocoDict, list[str]]:
        """Read all labels.

        The id of a class is its index in the yaml. Images are numbered in the order of their paths,
        or of the list that names them. Boxes are enclosing boxes of polygons, and what they refer
        to is the upright image.

        Returns:
            The COCO dict, and sentences on what was converted or is missing.

        Raises:
            InputError: a line of a label file is invalid, or no image has a label file.
        """
        images, boxes, without, polygons = [], [], [], 0
        for number, (image, labels) in enumerate(zip(self._images, self._labels, strict=True), 1):
            # Where the header cannot be read, the check of the images reports why.
            width, height = upright_size(image) or (1, 1)
            name = image.relative_to(self.image_dir).as_posix()
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            if not labels.is_file():
                without.append(name)
                continue
            for label, (x, y, w, h), is_polygon in self._read_labels(labels):
                box = [x * width, y * height, w * width, h * height]
                entry = {"id": len(boxes) + 1, "image_id": number, "category_id": label}
                boxes.append({**entry, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
                polygons += is_polygon
        if len(without) == len(images):
            raise InputError(
                f"{self._file}: none of the {len(images)} images has a label file; for "
                f"{self._images[0]} it would be {self._labels[0]}"
            )
        categories = [{"id": index, "name": name} for index, name in self._names.items()]
        coco = {"images": images, "annotations": boxes, "categories": categories}
        return coco, self._notes(without, polygons)

    def _read_labels(self, file: Path) -> Iterator[tuple[int, Sequence[float], bool]]:
        """Yield class, box (x, y, width, height; fractions) and whether it was a polygon."""
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise InputError(f"{file}: not a text file in UTF-8") from None
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield self._read_line(line)
                except ValueError as error:
                    raise InputError(f"{file}, line {number}: {error}, got {line!r:.80}") from None

    def _read_line(self, line: str) -> tuple[int, Sequence[float], bool]:
        label, *values = map(float, line.split())
        if label not in self._names:
            raise ValueError(
                f"the class must be one of {_enumerated(list(self._names))} ({self._file.name})"
            )
        if self._keypoints:
            values = values[:4]
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise ValueError(
                "expected class, x, y, width, height, or class and the x, y of three or more points"
            )
        if not all(-_BEYOND <= value <= 1 + _BEYOND for value in values):
            raise ValueError("coordinates must be fractions of the image size, from 0 to 1")
        if len(values) == 4:
            x, y, w, h = values
            return int(label), (x - w / 2, y - h / 2, w, h), False
        xs, ys = values[::2], values[1::2]
        box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
        return int(label), box, True

    def _notes(self, without: Sequence[str], polygons: int) -> list[str]:
        notes = []
        if without:
            notes.append(
                f"{len(without)} of {counted(len(self._images), 'image')} "
                f"{agreed(len(without), 'have')} no label file, so no objects "
                f"({examples(without)})"
            )
        if unused := self._labels_without_image():
            notes.append(
                f"{counted(len(unused), 'label file')} without an image ({examples(unused)})"
            )
        if polygons:
            notes.append(
                f"{counted(polygons, 'polygon')} among the labels: the enclosing box is used"
            )
        if self._repeated:
            notes.append(f"{counted(self._repeated, 'image')} listed again, and used once")
        return notes

    def _labels_without_image(self) -> list[str]:
        """Return names of label files; their folders may also have labels of other splits."""
        pairs = zip(self._labels, self._images, strict=True)
        folders = {labels.parent: image.parent for labels, image in pairs}
        unused = []
        for labels, images in folders.items():
            known = {Path(n).stem for n in os.listdir(images) if Path(n).suffix != ".txt"}
            known |= {"classes", *(file.stem for file in self._lists)}
            unused += [file.name for file in labels.glob("*.txt") if file.stem not in known]
        return sorted(unused)


def label_file(image: Path) -> Path:
    """Return the label file of an image: its last folder ``images`` replaced by ``labels``.

    >>> label_file(Path("a/images/train/1.jpg")).as_posix()
    'a/labels/train/1.txt'
    """
    *folders, name = image.with_suffix(".txt").parts
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return Path(*folders, name)


def _read_yaml(file: Path) -> dict[str, Any]:
    """Return the content; every value is text, so a class can be called ``no``."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)
    except FileNotFoundError:
        raise MissingFileError(f"{file}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or one_line(error)
        raise InputError(f"{file}{line}: not a yaml file ({reason})") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected train, val and names, as in a data.yaml of YOLO")
    return content


def _names(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Return index -> name of the classes."""
    names, count = content.get("names"), content.get("nc")
    if count is not None and not str(count).isdecimal():
        raise InputError(f"{file}: nc must be the number of classes, got {count!r:.80}")
    if not names and count:
        return {index: f"class_{index}" for index in range(int(count))}
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not names or not isinstance(names, dict):
        raise InputError(f"{file}: names must be a list of the classes, or a dict of index: name")
    for index, name in names.items():
        if not str(index).isdecimal() or not isinstance(name, str):
            raise InputError(
                f"{file}: names: expected index: name, got {index!r:.40}: {name!r:.80}"
            )
    if count is not None and int(count) != len(names):
        raise InputError(f"{file}: nc is {count}, but there are {len(names)} names")
    if twice := next((n for n in names.values() if list(names.values()).count(n) > 1), None):
        raise InputError(f"{file}: names has {twice!r:.80} twice")
    return {int(index): name for index, name in names.items()}


def _images(content: dict[str, Any], file: Path, split: str, lists: list[Path]) -> Iterator[Path]:
    """Yield the images of a split; the text files that list some are added to ``lists``."""
    key = next((key for key in _ALSO.get(split, (split,)) if content.get(key)), None)
    if key is None:
        hint = did_you_mean(split, content, f"It has {', '.join(content)}.")
        raise InputError(f"{file}: no {split!r} with the folder of its images. {hint}")
    root = _root(content, file)
    entries = content[key] if isinstance(content[key], list) else [content[key]]
    for entry in entries:
        place = _existing([root], str(entry))
        if place is None:
            raise MissingFileError(f"{file}: {key}: {root / str(entry)}: no such folder or file")
        if place.is_file():
            lists.append(place)
            yield from _listed(place, root)
            continue
        found = sorted(
            Path(folder, name)
            for folder, _, names in os.walk(place)
            for name in names
            if Path(name).suffix.lower() in _IMAGES
        )
        if not found:
            raise InputError(f"{file}: {key}: {place} has no image ({' '.join(_IMAGES)})")
        yield from found


def _root(content: dict[str, Any], file: Path) -> Path:
    """Return the folder that the paths of splits are relative to."""
    text = content.get("path")
    if text in (None, "", "~", "null"):
        return file.parent
    text = os.path.expanduser(str(text))
    found = _existing([file.parent, Path.cwd()], text)
    if found is None:
        raise MissingFileError(
            f"{file}: path: no folder {text!r}, neither in {file.parent} nor in {Path.cwd()}; "
            "remove it if the data is beside the yaml"
        )
    return found


def _existing(roots: Sequence[Path], text: str) -> Path | None:
    r"""Return the first existing path of a text, also with ``\`` between its parts.

    Exports of Roboflow have a ``../`` too many.
    """
    forward = text.replace("\\", "/")
    for variant in dict.fromkeys((text, forward, forward.removeprefix("../"))):
        for root in roots:
            path = Path(os.path.abspath(root / variant))
            if variant and path.exists():
                return path
    return None


def _listed(file: Path, root: Path) -> Iterator[Path]:
    """Yield the images that a text file lists, one on each line."""
    count = 0
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            image = _existing([file.parent, root, Path.cwd()], line.strip())
            if image is None:
                raise MissingFileError(f"{file}, line {number}: no image {line.strip()!r:.200}")
            count += 1
            yield image
    if not count:
        raise InputError(f"{file}: lists no image")


def _enumerated(indices: Sequence[int]) -> str:
    low, high = min(indices), max(indices)
    if len(indices) == high - low + 1:
        return f"{low} to {high}"
    return ", ".join(map(str, sorted(indices)))
