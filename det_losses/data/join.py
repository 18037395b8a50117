"""Join datasets whose classes have the same names under other ids."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from det_losses.data.coco_json import CocoDict, conversions, load_coco_json
from det_losses.errors import InputError, counted

Paths = str | Path | Sequence[str | Path]


def load_joined(ann_file: Paths, image_dir: Paths) -> tuple[CocoDict, str, str, list[str]]:
    """Read one annotation file, or join several.

    Classes are joined by name. Ids of the first file are kept. If an id of an image or an
    annotation occurs in two files, those of the later files are shifted. File names become relative
    to the folder that all image folders have in common.

    Args:
        ann_file: Path of a json, or a list of them.
        image_dir: Folder of the images; for a list of files, one folder for all or one for each.

    Returns:
        The COCO dict, a name of the file or files for messages, the folder of the images, and
        sentences on what was converted or is missing.

    Raises:
        MissingFileError: An annotation file is missing.
        InputError: A file is not valid, the numbers of files and folders differ, or two files have
            the same image.
    """
    if isinstance(ann_file, (str, Path)):
        if not isinstance(image_dir, (str, Path)):
            raise InputError(f"one annotation file needs one image folder, got {list(image_dir)}")
        return load_coco_json(ann_file), str(ann_file), str(image_dir), [*conversions(ann_file)]
    files = [str(file) for file in ann_file]
    dirs = [image_dir] * len(files) if isinstance(image_dir, (str, Path)) else list(image_dir)
    if len(dirs) == 1:
        dirs = dirs * len(files)
    if not files or len(dirs) != len(files):
        raise InputError(
            f"{counted(len(files), 'annotation file')} and {counted(len(dirs), 'image folder')}: "
            "give one folder for all files, or one for each"
        )
    folder, prefixes = common_folder(dirs)
    coco, notes = _join([load_coco_json(file) for file in files], files, prefixes)
    notes += [f"{os.path.basename(file)}: {note}" for file in files for note in conversions(file)]
    return coco, " + ".join(files), folder, notes


def join_classes(
    parts: Sequence[Sequence[tuple[int, str]]], sources: Sequence[str]
) -> tuple[dict[str, int], list[str]]:
    """Join the classes of several datasets by name.

    Args:
        parts: (category id, name) of the classes of each.
        sources: Name of each dataset.

    Returns:
        Name -> category id, which is that of the first dataset with this name, or the next free one
        if that is taken; and a sentence on each dataset that lacks classes.
    """
    joined: dict[str, int] = {}
    free = max(category_id for part in parts for category_id, _ in part) + 1
    for category_id, name in (pair for part in parts for pair in part):
        if name in joined:
            continue
        if category_id in joined.values():
            category_id, free = free, free + 1
        joined[name] = category_id
    notes = []
    for source, part in zip(sources, parts, strict=True):
        missing = joined.keys() - {name for _, name in part}
        if missing:
            notes.append(
                f"{source} has no class {', '.join(sorted(missing))}: such objects in its images "
                "count as background"
            )
    return joined, notes


def offsets(ids: Sequence[Sequence[int]]) -> list[int]:
    """Return what to add to the ids of each dataset so that no two have the same; 0 if none do."""
    if sum(len(set(part)) for part in ids) == len(set().union(*ids)):
        return [0] * len(ids)
    found: list[int] = []
    free = 0
    for part in ids:
        found.append(free - min([*part, 0]) if found else 0)
        free = found[-1] + max([*part, 0]) + 1
    return found


def common_folder(dirs: Sequence[str | Path]) -> tuple[str, list[str]]:
    """Return the folder that contains all, and the path from it to each (empty for itself)."""
    if len({str(each) for each in dirs}) == 1:
        return str(dirs[0]), [""] * len(dirs)
    absolute = [os.path.abspath(each) for each in dirs]
    folder = os.path.commonpath(absolute)
    return folder, ["" if each == folder else os.path.relpath(each, folder) for each in absolute]


def _join(
    parts: Sequence[CocoDict], files: Sequence[str], prefixes: Sequence[str]
) -> tuple[CocoDict, list[str]]:
    classes = [[(c["id"], c["name"]) for c in part["categories"]] for part in parts]
    ids, notes = join_classes(classes, files)
    image_shift = offsets([[image["id"] for image in part["images"]] for part in parts])
    box_shift = offsets([[box["id"] for box in part["annotations"]] for part in parts])
    joined: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    source_of: dict[str, str] = {}
    for number, part in enumerate(parts):
        id_of = {category_id: ids[name] for category_id, name in classes[number]}
        for image in part["images"]:
            name = os.path.join(prefixes[number], image["file_name"])
            if source_of.setdefault(name, files[number]) != files[number]:
                raise InputError(
                    f"the image {name} is in both {source_of[name]} and {files[number]}. Put all "
                    "its annotations into one of them and remove it from the other."
                )
            joined["images"].append(_moved(image, image_shift[number], file_name=name))
        for box in part["annotations"]:
            joined["annotations"].append(
                _moved(
                    box,
                    box_shift[number],
                    image_id=box["image_id"] + image_shift[number],
                    category_id=id_of[box["category_id"]],
                )
            )
    joined["categories"] = [{"id": number, "name": name} for name, number in ids.items()]
    return joined, notes


def _moved(entry: Mapping[str, Any], shift: int, **changes: Any) -> dict[str, Any]:
    return {**entry, "id": entry["id"] + shift, **changes}
