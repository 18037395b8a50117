"""Read image files of any colour mode as RGB, in the orientation of the annotations."""

import hashlib
import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from det_losses.errors import InputError, MissingFileError, UserError, printable
from det_losses.files import write_bytes

_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_DECODED_PIXELS = 16_000_000  # 48 MB in each of up to 32 threads; of larger ones, one at a time
_BYTES_PER_PIXEL = 8  # of a decoded image and a copy
_one_large_image = threading.Lock()
_RECOUNT = 100  # files written before a shared cache is measured again
_LONGEST = 100  # times the shorter side


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
        InputError: It is not a regular file or not a readable image, or has another size in both
            orientations.
    """
    with _opened(path, size) as image:
        if image.size != tuple(size):
            image = ImageOps.exif_transpose(image)
        pixels = np.array(to_rgb(image))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_upright(path: str | Path) -> Tensor:
    """Read an image that has no annotations as RGB, rotated by its EXIF orientation.

    Colours are converted as in :func:`read_image`. Without the size in an annotation file, the
    array that a viewer shows is the only reasonable one.

    Args:
        path: The image file; of several frames, the first one is read.

    Returns:
        uint8 [3, height, width].

    Raises:
        MissingFileError: There is no such file.
        InputError: It is not a regular file or not a readable image.
    """
    with _opened(path) as image:
        pixels = np.array(to_rgb(ImageOps.exif_transpose(image)))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def check_image(path: str | Path, size: tuple[int, int]) -> bool:
    """Check that :func:`read_image` can read an image, at a fraction of its cost.

    JPEG data is read completely, but decoded at an eighth of its size. Other formats are decoded;
    with more than 16 megapixels one at a time, and only if the memory allows.

    Args:
        path: The image file.
        size: (width, height) in the annotation file, pixels.

    Returns:
        Whether it was decoded; False if only its header was read, for lack of memory.

    Raises:
        MissingFileError: There is no such file.
        InputError: As for :func:`read_image`, or one side is more than 100 times the other, so that
            less than a pixel could be left of it after the detector has resized the image.
    """
    with _opened(path, size) as image:
        if max(size) > _LONGEST * min(size):
            raise InputError(
                f"{printable(str(path))}: {_size_text(size)} pixels, but no side may be more than "
                f"{_LONGEST} times the other. Cut the image into tiles, or remove it."
            )
        image.draft(None, (1, 1))
        pixels = image.width * image.height
        if pixels <= _DECODED_PIXELS:
            image.load()
            return True
        with _one_large_image:
            fits = _BYTES_PER_PIXEL * pixels <= _free_memory()
            if fits:
                image.load()
        return fits


def _free_memory() -> float:
    """Return the bytes of memory that are available; infinite where the system does not say it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration, ValueError, IndexError):
        return float("inf")


@contextmanager
def _opened(path: str | Path, size: tuple[int, int] | None = None) -> Iterator[Image.Image]:
    """Open an image whose stored or rotated array has the given size; None: of any size.

    Errors of PIL in the body become an InputError too.
    """
    name = printable(str(path))
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait forever
            raise InputError(f"{name}: not a regular file, so not an image. Replace or remove it.")
        if not status.st_size:
            raise OSError("the file is empty")
        with Image.open(path) as image:
            if size is not None:
                _check_size(image, name, size)
            if image.mode == "F":
                raise InputError(
                    f"{name}: float images are not supported; save it with 8 or 16 bits"
                )
            yield image
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        is_link = os.path.islink(path)
        target = f"a link to {printable(os.readlink(path))}, which is missing" if is_link else ""
        raise MissingFileError(f"{name}: {target or 'no such image file'}") from None
    except Image.DecompressionBombError:
        annotated = f"{_size_text(size)} pixels in the annotation file, and " if size else ""
        raise InputError(
            f"{name}: {annotated}more than the {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} megapixels "
            "that can be read. Cut the image into tiles, or remove it."
        ) from None
    except Exception as error:  # on damaged bytes, PIL's decoders raise almost any type
        entry = ", or remove its entry from the annotation file" if size else ""
        raise InputError(
            f"{name}: not a readable image ({_reason(error)}). Replace the file{entry}."
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its message repeats the path
        return "its format is not known"
    is_told = isinstance(error, (OSError, SyntaxError))  # SyntaxError: PIL's for a broken PNG
    return printable(str(error) if is_told else f"{type(error).__name__}: {error}")


def exif_orientation(path: str | Path) -> int:
    """Return the EXIF orientation of an image file, 1 to 8; 1 if there is none."""
    try:
        with Image.open(path) as image:
            return image.getexif().get(_EXIF_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError):
        return 1  # reading the image reports what is wrong with it


def upright_size(path: str | Path) -> tuple[int, int] | None:
    """Return width and height of an image rotated by its EXIF orientation; None if unreadable."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_EXIF_ORIENTATION) in _QUARTER_TURNS
            return image.size[::-1] if turned else image.size
    except Exception:  # on damaged bytes, PIL's decoders raise almost any type
        return None


class ImageCache:
    """Reads images, and keeps them decoded up to a bound: in memory, or in memory-mapped files.

    The first images that are read are kept. Those beyond the bound are read from their file each
    time: in a shuffled pass over a set larger than the cache, replacing images would save nothing.

    Args:
        megabytes: The bound in MiB; 0 keeps nothing.
        folder: Keep them in files of this folder, which all processes share; the bound is that of
            the folder. A changed image is decoded again; its old copy stays until the folder is
            removed.

    Raises:
        InputError: ``megabytes`` is negative, or ``folder`` is given without a bound or cannot be
            made.
    """

    def __init__(self, megabytes: float, folder: str | Path | None = None) -> None:
        if megabytes < 0:
            raise InputError(f"the size of an image cache must be 0 or more MiB, got {megabytes}")
        self._bound = int(megabytes * 2**20)
        self._images: dict[str, Tensor] = {}
        self._used = self._unknown = 0
        self._folder = None if folder is None else Path(folder)
        if self._folder is not None:
            if not megabytes:
                raise InputError(f"cache_dir={str(folder)!r} needs a bound: give cache_mb, in MiB")
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"cache_dir={str(folder)!r}: {error.strerror}") from error
            self._count_files()

    def read(self, path: str, size: tuple[int, int]) -> Tensor:
        """Return what :func:`read_image` returns; the caller may change it."""
        if self._folder is not None:
            return self._read_file(path, size)
        if path in self._images:
            return self._images[path].clone()
        image = read_image(path, size)
        if self._used + image.nbytes <= self._bound:
            self._used += image.nbytes
            self._images[path] = image.clone()
        return image

    def _read_file(self, path: str, size: tuple[int, int]) -> Tensor:
        try:
            state = os.stat(path)
        except OSError:
            return read_image(path, size)  # which tells why
        name = f"{os.path.abspath(path)} {size} {state.st_mtime_ns} {state.st_size}"
        file = self._folder / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.npy"
        try:
            return torch.from_numpy(np.array(np.load(file, mmap_mode="r")))
        except (OSError, ValueError, EOFError):  # it does not exist, or a full disk has cut it
            image = read_image(path, size)
        if self._used + image.nbytes <= self._bound:
            content = io.BytesIO()
            np.save(content, image.numpy())
            try:
                write_bytes(file, content.getvalue())
            except OSError:  # the disk is full: no more are kept
                self._bound = 0
            self._used += image.nbytes
            self._unknown += 1
            if self._unknown == _RECOUNT:  # other processes write too
                self._count_files()
        return image

    def _count_files(self) -> None:
        self._used = self._unknown = 0
        for file in os.scandir(self._folder):
            with suppress(FileNotFoundError):  # another process has renamed it
                self._used += file.stat().st_size


def _check_size(image: Image.Image, name: str, size: tuple[int, int]) -> None:
    if image.size == tuple(size):
        return
    orientation = image.getexif().get(_EXIF_ORIENTATION)
    upright = image.size[::-1] if orientation in _QUARTER_TURNS else image.size
    if upright == tuple(size):
        return
    rotated = f", rotated by its EXIF orientation {orientation} {_size_text(upright)}"
    swapped = image.size == tuple(size[::-1])
    raise InputError(
        f"{name}: the annotation file says {_size_text(size)} (width x height), but the image is "
        f"{_size_text(image.size)}{rotated if orientation else ''}. "
        f"{'Are width and height exchanged? ' if swapped else ''}Annotate the file at "
        "its actual size, or correct 'width' and 'height' if its boxes belong to that size."
    )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode; 16 bits are scaled to 8, and alpha is dropped."""
    if image.mode.startswith("I"):  # 16 bits: PIL's own conversion clips at 255
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    elif image.mode in ("P", "PA"):  # via RGBA: otherwise transparency in bytes warns
        image = image.convert("RGBA")
    return image.convert("RGB")


def _size_text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
