"""Data in the layout of Pascal VOC: Annotations/, JPEGImages/, ImageSets/Main/."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from det_losses.data.coco_json import CocoDict, is_finite
from det_losses.data.images import upright_size
from det_losses.errors import InputError, MissingFileError, counted

ANNOTATIONS, IMAGES, SETS = "Annotations", "JPEGImages", "ImageSets/Main"
_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_WITH_FLAG = re.compile(r"(.+?)\s+(-1|0|1)")  # a line of cat_train.txt: -1 means without a cat


class VocSplit:
    """The images and annotations of one split, found but not read.

    Args:
        listing: the text file that names the images of the split, in ``ImageSets/Main``.

    Attributes:
        image_dir: the folder of the images.
        files: the files that the result of :meth:`coco` depends on.
        target: where the COCO json of this split belongs.

    Raises:
        MissingFileError: the listing or the annotation of an image is missing.
        InputError: the listing has no image.
    """

    def __init__(self, listing: Path) -> None:
        self._root = listing.parents[2]
        self.image_dir = self._root / IMAGES
        self._annotations = self._root / ANNOTATIONS
        self._every = sorted(self._annotations.glob("*.xml"))
        self._ids, self._repeated = self._listed(listing)
        self._files = [self._annotations / f"{image}.xml" for image in self._ids]
        self.files = [listing, *self._every, *map(self._image, self._ids)]
        self.target = self._root / f"{listing.stem}.coco.json"

    def coco(self) -> tuple[CocoDict, list[str]]:
        """Read all annotations.

        Classes are numbered from 1 in alphabetical order, over the annotations of all splits, which
        for VOC's own data is its order. Images are numbered in the order of the listing. Objects
        that are marked as difficult are crowds: training leaves them out, and detections on them
        are ignored, as in VOC's evaluation.

        Coordinates are those of VOC: pixels counted from 1, the last one included, so the box
        1, 1, 100, 50 covers an image of 100 x 50. Some tools count from 0; where a coordinate of 0
        shows this, all are taken as the edges of the box.

        Returns:
            The COCO dict, and sentences on what was converted.

        Raises:
            InputError: an annotation is invalid.
        """
        parsed = {file: _parse(file) for file in self._every}
        objects = {file: _objects(file, root) for file, root in parsed.items()}
        every = [found for own in objects.values() for found in own]
        names = sorted({found["name"] for found in every})
        from_zero = next((f for f, own in objects.items() if _counts_from_zero(own)), None)
        images, boxes, unsized = [], [], 0
        for number, (image_id, file) in enumerate(zip(self._ids, self._files, strict=True), 1):
            image = self._image(image_id, parsed[file].findtext("filename"))
            size = _size(parsed[file])
            unsized += size is None
            # Where the header cannot be read, the check of the images reports why.
            width, height = size or upright_size(image) or (1, 1)
            entry = {"id": number, "file_name": image.name, "width": width, "height": height}
            images.append(entry)
            for found in objects[file]:
                own = {"id": len(boxes) + 1, "image_id": number}
                own["category_id"] = 1 + names.index(found["name"])
                box = _box(found["corners"], first=0 if from_zero else 1)
                area = box[2] * box[3]
                boxes.append({**own, "bbox": box, "area": abs(area), "iscrowd": found["difficult"]})
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        coco = {"images": images, "annotations": boxes, "categories": categories}
        difficult = sum(box["iscrowd"] for box in boxes)
        return coco, self._notes(difficult, unsized, from_zero)

    def _notes(self, difficult: int, unsized: int, from_zero: Path | None) -> list[str]:
        notes = []
        if from_zero is not None:
            notes.append(
                f"coordinates are taken as counted from 0, because {from_zero.name} has a "
                "coordinate below 1"
            )
        if difficult:
            notes.append(f"{counted(difficult, 'object')} marked as difficult: read as crowd")
        if unsized:
            notes.append(
                f"{counted(unsized, 'annotation')} without a size; that of the image is used"
            )
        if self._repeated:
            notes.append(f"{counted(self._repeated, 'image')} listed again, and used once")
        return notes

    def _listed(self, listing: Path) -> tuple[list[str], int]:
        """Return the names of the listed images, each once, and the number of repetitions."""
        if not listing.is_file():
            others = ", ".join(sorted(file.name for file in listing.parent.glob("*.txt"))[:10])
            has = f"; {listing.parent} has {others}" if others else ""
            raise MissingFileError(f"{listing}: no such list of images{has}")
        found = []
        known = {file.stem for file in self._every}
        for number, line in enumerate(listing.read_text(encoding="utf-8-sig").splitlines(), 1):
            name = line.strip()
            if name and name not in known and (flagged := _WITH_FLAG.fullmatch(name)):
                name = flagged[1]
            if name and name not in known:
                raise MissingFileError(
                    f"{listing}, line {number}: no annotation {self._annotations / name}.xml"
                )
            found += [name] if name else []
        if not found:
            raise InputError(f"{listing}: lists no image")
        return [*dict.fromkeys(found)], len(found) - len(set(found))

    def _image(self, image_id: str, stated: str | None = None) -> Path:
        """Return the file of an image: as the annotation states it, or else by its id."""
        names = [stated] if stated and Path(stated).name == stated else []
        names += [f"{image_id}{suffix}" for suffix in (*_IMAGES, *map(str.upper, _IMAGES))]
        paths = [self.image_dir / name for name in names]
        return next((path for path in paths if path.is_file()), paths[0])


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        line = error.position[0]
        raise InputError(f"{file}, line {line}: not an xml file ({error})") from None


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Return width and height; None if absent or 0, as some tools write."""
    texts = [root.findtext(f"size/{side}", "").strip() for side in ("width", "height")]
    if not all(text.isdecimal() and int(text) for text in texts):
        return None
    return int(texts[0]), int(texts[1])


def _objects(file: Path, root: ElementTree.Element) -> list[dict[str, Any]]:
    """Return name, corners and ``difficult`` of each object, without its parts (heads, hands)."""
    found = []
    for number, entry in enumerate(root.findall("object")):
        name = entry.findtext("name", "").strip()
        texts = [entry.findtext(f"bndbox/{side}", "").strip() for side in _CORNERS]
        corners = [_number(text) for text in texts]
        if not name or None in corners:
            fault = f"bndbox {', '.join(texts)}" if name else "no name"
            raise InputError(
                f"{file}, line {_line(file, number)}: an object needs a name and a bndbox with the "
                f"numbers xmin, ymin, xmax, ymax, got {fault:.80}"
            )
        difficult = int(entry.findtext("difficult", "0").strip() in ("1", "true", "True"))
        found.append({"name": name, "corners": corners, "difficult": difficult})
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if is_finite(value) else None


def _line(file: Path, number: int) -> int:
    """Return the line on which the object of this number starts."""
    text = file.read_text(encoding="utf-8", errors="replace")
    starts = [found.start() for found in re.finditer(r"<object[\s>]", text)]
    return 1 + text.count("\n", 0, starts[number] if number < len(starts) else 0)


def _counts_from_zero(objects: Sequence[dict[str, Any]]) -> bool:
    return any(min(found["corners"][:2]) < 1 for found in objects)


def _box(corners: Sequence[float], first: int) -> list[float]:
    """Return x, y, width, height of inclusive corners that count from 1, or of edges."""
    x1, y1, x2, y2 = corners
    return [x1 - first, y1 - first, x2 - x1 + first, y2 - y1 + first]
