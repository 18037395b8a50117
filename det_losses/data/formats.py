"""Data in the layout of YOLO or Pascal VOC, converted to COCO json once."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from det_losses.data.voc import ANNOTATIONS, IMAGES, SETS, VocSplit
from det_losses.data.yolo import YoloSplit
from det_losses.errors import InputError, MissingFileError
from det_losses.files import read_whole_json, write_json
from det_losses.paths import cache_root

Paths = str | Path | Sequence[str | Path]

_FORMAT = 1  # increment it when the conversion changes
_YAML = (".yaml", ".yml")


def as_coco(
    ann_file: Paths | None, image_dir: Paths | None, split: str
) -> tuple[Paths | None, Paths | None]:
    """Return annotation files and image folders in which all other formats are converted.

    Args:
        ann_file: COCO jsons, data.yaml files of YOLO, folders of Pascal VOC, or text files in their
            ``ImageSets/Main``; one, or a list.
        image_dir: folders of the images of the COCO jsons; the other formats know their own.
        split: ``"train"`` or ``"val"``.

    Raises:
        MissingFileError: a file is missing.
        InputError: a file is invalid, or a folder of images is given for another format.
    """
    files, folders = _as_list(ann_file), _as_list(image_dir)
    converted = [_is_other_format(Path(file)) for file in files]
    if not any(converted):
        return ann_file, image_dir
    jsons = converted.count(False)
    if len(folders) not in ({1, jsons} if jsons else {0}):
        raise InputError(
            f"--{split}-images is for COCO jsons only: got {len(folders)} folders for {jsons}. "
            "YOLO and Pascal VOC name their own images"
        )
    own = iter(folders * jsons if len(folders) == 1 else folders)
    pairs = [
        convert(Path(file), split) if other else (file, next(own))
        for file, other in zip(files, converted, strict=True)
    ]
    return [file for file, _ in pairs], [folder for _, folder in pairs]


def _is_other_format(path: Path) -> bool:
    return path.suffix.lower() in _YAML or path.is_dir() or _is_voc_list(path)


def _is_voc_list(path: Path) -> bool:
    return path.suffix == ".txt" and path.parts[-3:-1] == Path(SETS).parts


def _as_list(paths: Paths | None) -> list[str | Path]:
    if paths is None:
        return []
    return [paths] if isinstance(paths, (str, Path)) else list(paths)


def convert(path: Path, split: str) -> tuple[Path, Path]:
    """Convert one split to COCO json, unless that is stored and its sources have not changed.

    The json is written beside the original, as ``data.train.coco.json`` or ``train.coco.json``. If
    a file that we did not write has this name, or the folder is read-only, the user's cache folder
    gets it.

    Returns:
        The json, and the folder of its images.

    Raises:
        MissingFileError: a file is missing.
        InputError: a file is invalid.
    """
    path = Path(os.path.abspath(path))
    source = _source(path, split)
    digest = _digest(source.files)
    made_by = {"made_by": "det_losses", "sources": digest}
    here = hashlib.sha256(os.fsencode(source.target.parent)).hexdigest()[:16]
    places = (source.target, cache_root() / "converted" / here / source.target.name)
    stored = [_info(place) for place in places]
    for place, info in zip(places, stored, strict=True):
        if {key: info.get(key) for key in made_by} == made_by:
            return place, source.image_dir
    coco, notes = source.coco()
    for place, info in zip(places, stored, strict=True):
        if place.exists() and info.get("made_by") != "det_losses":
            continue  # a file of the user
        note = f"converted from {path} to {place}"
        info = {**made_by, "notes": [note, *notes]}
        try:
            write_json(place, {"info": info, **coco})
        except OSError:
            continue
        return place, source.image_dir
    raise InputError(f"{path}: neither {places[0]} nor {places[1]} can be written")


def _source(path: Path, split: str) -> YoloSplit | VocSplit:
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder")
    if path.suffix.lower() in _YAML:
        return YoloSplit(path, split)
    if _is_voc_list(path):
        return VocSplit(path)
    if (path / ANNOTATIONS).is_dir():
        return VocSplit(path / SETS / f"{split}.txt")
    if (path / "data.yaml").is_file():
        return YoloSplit(path / "data.yaml", split)
    inner = sorted(folder.parent for folder in path.glob(f"*/{ANNOTATIONS}"))
    hint = f" Did you mean {inner[0]}?" if inner else ""
    raise InputError(
        f"{path}: neither Pascal VOC ({ANNOTATIONS}, {IMAGES} and {SETS}) nor YOLO (a data.yaml)."
        f"{hint}"
    )


def _digest(files: Sequence[Path]) -> str:
    """Return a digest of the format, and of path, size and modification time of all files."""
    states: list[Any] = [_FORMAT]
    for file in files:
        try:
            status = os.stat(file)
            states.append((str(file), status.st_size, status.st_mtime_ns))
        except OSError:
            states.append((str(file),))
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def _info(file: Path) -> dict[str, Any]:
    content = read_whole_json(file)
    info = content.get("info") if isinstance(content, dict) else None
    return info if isinstance(info, dict) else {}
