"""Read image files of any colour mode as RGB, in the orientation of the annotations."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from det_losses.errors import InputError, MissingFileError

_EXIF_ORIENTATION = 0x0112


def read_image(path: str | Path, size: tuple[int, int]) -> Tensor:
    """Read an image as RGB.

    Boxes refer to one of two pixel arrays: the stored one (COCO's own annotations, labelling tools
    that ignore EXIF), or the array rotated by the EXIF orientation. The size in the json decides:
    if the stored array has that size it is used unchanged, otherwise the rotated one. Orientations
    that keep the size (flips, rotations by 180 degrees, and all for a square image) are therefore
    never applied.

    Grayscale, palette, CMYK and 16-bit images are converted; alpha is dropped.

    Args:
        path: The image file.
        size: (width, height) in the annotation file, pixels.

    Returns:
        uint8 [3, height, width].

    Raises:
        MissingFileError: There is no such file.
        InputError: The file is not a readable image, or has another size in both orientations.
    """
    try:
        with Image.open(path) as image:
            if image.size != tuple(size):
                image = _upright(image, path, size)
            pixels = np.array(_to_rgb(image, path))
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such image file") from None
    except (OSError, SyntaxError) as error:  # SyntaxError: PIL's error for a broken PNG
        raise InputError(
            f"{path}: not a readable image ({error}). Replace the file, or remove its entry "
            "from the annotation file."
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def exif_orientation(path: str | Path) -> int:
    """Return the EXIF orientation of an image file, 1 to 8; 1 if there is none."""
    try:
        with Image.open(path) as image:
            return image.getexif().get(_EXIF_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError):
        return 1  # reading the image reports what is wrong with it


class ImageCache:
    """Reads images, and keeps them decoded in memory up to a bound.

    The first images that are read are kept. Those beyond the bound are read from their file each
    time: in a shuffled pass over a set larger than the cache, replacing images would save nothing.

    Args:
        megabytes: The bound in MiB; 0 keeps nothing.

    Raises:
        InputError: ``megabytes`` is negative.
    """

    def __init__(self, megabytes: float) -> None:
        if megabytes < 0:
            raise InputError(f"the size of an image cache must be 0 or more MiB, got {megabytes}")
        self._free = int(megabytes * 2**20)
        self._images: dict[str, Tensor] = {}

    def read(self, path: str, size: tuple[int, int]) -> Tensor:
        """Return what :func:`read_image` returns; the caller may change it."""
        if path in self._images:
            return self._images[path].clone()
        image = read_image(path, size)
        if image.nbytes <= self._free:
            self._free -= image.nbytes
            self._images[path] = image.clone()
        return image


def _upright(image: Image.Image, path: str | Path, size: tuple[int, int]) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.size == tuple(size):
        return upright
    orientation = image.getexif().get(_EXIF_ORIENTATION)
    rotated = f"rotated by its EXIF orientation {orientation} {_size_text(upright.size)}"
    raise InputError(
        f"{path}: the annotation file says {_size_text(size)} (width x height), but the image is "
        f"{_size_text(image.size)}{', ' + rotated if orientation else ''}. Annotate the file at "
        "its actual size, or correct 'width' and 'height' if its boxes belong to that size."
    )


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: PIL's own conversion clips at 255
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise InputError(f"{path}: float images are not supported; save it with 8 or 16 bits")
    elif image.mode in ("P", "PA"):  # via RGBA: otherwise transparency in bytes warns
        image = image.convert("RGBA")
    return image.convert("RGB")


def _size_text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
