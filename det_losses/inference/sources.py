"""Find the images and videos of a prediction, and read them frame by frame."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import torch
from torch import Tensor

from det_losses.data.images import read_upright
from det_losses.errors import InputError, MissingFileError, printable

IMAGES = frozenset(".jpg .jpeg .png .bmp .webp .tif .tiff .gif .ppm .pgm .jp2 .avif".split())
VIDEOS = frozenset(".mp4 .avi .mov .mkv .webm .m4v .mpg .mpeg .wmv .flv".split())


def find_files(sources: Iterable[str | Path]) -> list[Path]:
    """Return the image and video files of several sources, each file once.

    Args:
        sources: files (of any extension), folders (searched with all subfolders for known
            extensions; hidden files are left out) and patterns such as ``"photos/*.jpg"`` (``**``
            matches any number of folders).

    Raises:
        MissingFileError: there is no such file or folder, or nothing matches a pattern.
        InputError: a folder has no image and no video.
    """
    found = {os.path.realpath(file): file for each in sources for file in _files_of(Path(each))}
    return list(found.values())


def _files_of(source: Path) -> list[Path]:
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if _is_listed(path, source))
        if not files:
            raise InputError(f"{source}: no image and no video in this folder")
        return files
    if source.exists():
        return [source]
    if not glob.has_magic(str(source)):
        raise MissingFileError(f"{source}: no such image, video or folder")
    matches = map(Path, sorted(glob.glob(str(source), recursive=True)))
    files = [path for path in matches if path.is_file()]
    if not files:
        raise MissingFileError(f"{source}: no file matches this pattern")
    return files


def _is_listed(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in IMAGES | VIDEOS and not hidden and path.is_file()


def is_video(path: Path) -> bool:
    """Return whether a file is read as a video, which its extension tells."""
    return path.suffix.lower() in VIDEOS


def read_frames(path: Path) -> Iterator[Tensor]:
    """Yield the image of a file, or all frames of a video: uint8 [3, H, W], RGB, upright.

    Raises:
        MissingFileError: there is no such file.
        InputError: it cannot be read.
    """
    if not is_video(path):
        yield read_upright(path)
        return
    with open(path, "rb"):  # names a file that is missing or may not be read
        pass
    video = cv2.VideoCapture(str(path))
    try:
        count = 0
        while True:
            read, frame = video.read()
            if not read:
                break
            count += 1
            yield torch.from_numpy(frame[:, :, ::-1].copy()).permute(2, 0, 1).contiguous()
    finally:
        video.release()
    if not count:
        raise InputError(f"{printable(str(path))}: not a readable video. Replace the file.")


def frame_rate(path: Path) -> float:
    """Return the frames per second of a video; 25 if the file does not tell."""
    video = cv2.VideoCapture(str(path))
    rate = video.get(cv2.CAP_PROP_FPS)
    video.release()
    return rate if 0 < rate < 1000 else 25.0
