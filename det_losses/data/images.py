"""Reading an image file of any colour mode into RGB, the way its annotations mean it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

_EXIF_ORIENTATION = 0x0112


def read_image(path: str | Path, size: tuple[int, int]) -> Tensor:
    """Read an image as RGB.

    Boxes belong to one of two pixel arrays: the stored one (COCO's own annotations, labelling tools
    that ignore EXIF) or the one turned upright by the EXIF orientation. The json's size decides:
    where the stored array has that size it is taken as it is, and only otherwise the upright one.
    Orientations that keep the size (flips and half turns, and every one of a square image)
    are therefore never applied.

    Grayscale, palette, CMYK and 16-bit images are converted, alpha is dropped.

    Args:
        path: The image file.
        size: (width, height) in the annotation file, pixels.

    Returns:
        uint8 [3, height, width].

    Raises:
        FileNotFoundError: The file is gone.
        ValueError: The file is no readable image, or has the given size in neither orientation.
    """
    try:
        with Image.open(path) as image:
            if image.size != tuple(size):
                image = _upright(image, path, size)
            pixels = np.array(_to_rgb(image, path))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image file") from None
    except (OSError, SyntaxError) as error:  # SyntaxError: PIL's word for a broken PNG
        raise ValueError(
            f"{path}: not a readable image ({error}). Replace the file, or remove its entry "
            "from the annotation file."
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _upright(image: Image.Image, path: str | Path, size: tuple[int, int]) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.size == tuple(size):
        return upright
    orientation = image.getexif().get(_EXIF_ORIENTATION)
    turned = f"turned by its EXIF orientation {orientation} {_by(upright.size)}"
    raise ValueError(
        f"{path}: the annotation file says {_by(size)} (width x height), but the image is "
        f"{_by(image.size)}{', ' + turned if orientation else ''}. Annotate the file at its own "
        "size, or correct 'width' and 'height' if its boxes belong to that size."
    )


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which PIL's own conversion clips at 255
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError(f"{path}: images of floats are not supported; save it with 8 or 16 bits")
    elif image.mode in ("P", "PA"):  # by way of RGBA: transparency in bytes warns otherwise
        image = image.convert("RGBA")
    return image.convert("RGB")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
