"""Open all images of a dataset before training, and remember which files are good."""

import fcntl
import hashlib
import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import PIL
from mmengine.logging import print_log
from PIL import Image

from det_losses.data.images import check_image
from det_losses.errors import InputError, UserError, counted, printable
from det_losses.files import read_json, write_json
from det_losses.paths import cache_root

_SHOWN = 3  # broken images in an error message
_REMEDY = "--skip-broken (skip_broken=True of the dataset) leaves them out."
_ANNOUNCED_AFTER, _ANNOUNCED_EVERY = 2.0, 30.0  # seconds

_postponed: ContextVar[list[str] | None] = ContextVar("postponed", default=None)

Entry = Mapping[str, Any]  # an image of a COCO json: file_name, width, height
State = list[int]  # bytes and modification time of a file, width and height in the json


@contextmanager
def reported_together() -> Iterator[None]:
    """Report the broken images of all datasets that are built inside the context in one error.

    Raises:
        InputError: images are broken; a further error of the data is added.
    """
    found: list[str] = []
    token = _postponed.set(found)
    try:
        yield
    except Exception as error:
        if not found:
            raise
        further = [str(error)] if isinstance(error, UserError) else []  # or a consequence
        raise InputError(" ".join([*found, _REMEDY, *further])) from error
    finally:
        _postponed.reset(token)
    if found:
        raise InputError(" ".join([*found, _REMEDY]))


def check_images(folder: str, images: Sequence[Entry], *, skip: bool) -> dict[str, str]:
    """Check that all images can be read, as :func:`~det_losses.data.images.check_image` does.

    Good files are remembered in the user's cache folder and opened again only if they change.
    A check that takes longer than two seconds reports its progress.

    Args:
        folder: Folder to which the file names are relative.
        images: Entries of a COCO json.
        skip: Whether broken images are allowed.

    Returns:
        File name -> error of each broken image.

    Raises:
        InputError: Images are broken, and ``skip`` is False or no image is left. Inside
            :func:`reported_together`, those of all datasets are one error at its end.
    """
    broken = _find_broken(folder, images)
    names = {image["file_name"] for image in images}
    if broken and not (skip and len(broken) < len(names)):
        shown = [error.rstrip(".") for error in list(broken.values())[:_SHOWN]]
        more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        count = f"{len(broken)} of {counted(len(names), 'image')}"
        text = f"{count} cannot be used: {'; '.join(shown)}{more}."
        postponed = _postponed.get()
        if skip or postponed is None:
            raise InputError(text if skip else f"{text} {_REMEDY}")
        if text not in postponed:
            postponed.append(text)
    return broken


def _find_broken(folder: str, images: Sequence[Entry]) -> dict[str, str]:
    folder = os.path.abspath(folder)
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    file = cache_root() / "images" / f"{digest}.json"
    states = {image["file_name"]: _state(folder, image) for image in images}
    if not _unknown(images, states, _read_good(file)):
        return {}
    with _locked(file):  # several processes start at the same time: only one opens the images
        good = _read_good(file)
        errors: dict[str, str] = {}
        try:
            for name, error in _open_all(folder, _unknown(images, states, good)):
                if error:
                    errors[name] = error
                elif error is None and states[name] is not None:
                    good[name] = states[name]
        finally:  # also after Ctrl-C
            _write_good(file, folder, good)
    return errors


def _state(folder: str, image: Entry) -> State | None:
    try:
        status = os.stat(os.path.join(folder, image["file_name"]))
    except (OSError, ValueError):  # the check of the image names the reason
        return None
    return [status.st_size, status.st_mtime_ns, image["width"], image["height"]]


def _unknown(
    images: Iterable[Entry], states: Mapping[str, State | None], good: Mapping[str, State]
) -> list[Entry]:
    """Return the images whose file is not known to be good in its present state."""
    names = (image["file_name"] for image in images)
    new = {name for name in names if states[name] is None or good.get(name) != states[name]}
    return [image for image in images if image["file_name"] in new]


def _open_all(folder: str, images: Sequence[Entry]) -> Iterator[tuple[str, str | None]]:
    """Yield the name of each image and its error: None without one, "" if it was not decoded."""
    unseen: list[str] = []

    def error_of(image: Entry) -> str | None:
        try:
            path = os.path.join(folder, image["file_name"])
            if not check_image(path, (image["width"], image["height"])):
                unseen.append(path)
                return ""
        except UserError as error:
            return str(error)
        return None

    Image.init()  # PIL imports its decoders on first use, which threads must not do together
    start = announced = time.monotonic()
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # of PIL, about metadata; an unusable image is an error
        for count, error in enumerate(pool.map(error_of, images), start=1):
            yield images[count - 1]["file_name"], error
            now = time.monotonic()
            wait = _ANNOUNCED_AFTER if announced == start else _ANNOUNCED_EVERY
            if now - announced >= wait:
                announced = now
                left = (now - start) / count * (len(images) - count)
                print_log(
                    f"{printable(folder)}: opening {len(images)} images, only once: "
                    f"{count / len(images):.0%}, {left:.0f} s left",
                    logger="current",
                )
    if unseen:
        print_log(
            f"{counted(len(unseen), 'image')} too large to be decoded in the free memory, so only "
            f"the header was read: {', '.join(map(printable, unseen[:_SHOWN]))}"
            + (", ..." if len(unseen) > _SHOWN else ""),
            logger="current",
            level=logging.WARNING,
        )


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Exclude other processes; without effect where the file system does not allow it."""
    handle = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = open(file.with_suffix(".lock"), "w")
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        pass
    try:
        yield
    finally:
        if handle is not None:
            handle.close()


def _read_good(file: Path) -> dict[str, State]:
    """Return file name -> state of the good files; of a damaged cache file, none."""
    try:
        content = read_json(file)
        if content["decoder"] == PIL.__version__:
            return dict(content["good"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return {}


def _write_good(file: Path, folder: str, good: Mapping[str, State]) -> None:
    content = {"folder": folder, "decoder": PIL.__version__, "good": good}
    try:
        write_json(file, content)
    except (OSError, ValueError):  # a cache folder that cannot be written costs only time
        pass
