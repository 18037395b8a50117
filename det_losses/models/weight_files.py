"""Files of weights: find or download one, verify it, read it."""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from det_losses.errors import InputError, MissingFileError, one_line

# Entries of a checkpoint that have the weights; averaged weights (EMA) first. mmengine's EMAHook
# stores the averaged weights as "state_dict".
_ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model")


_skipped: ContextVar[list[str] | None] = ContextVar("skipped", default=None)


@contextmanager
def weights_skipped() -> Iterator[list[str]]:
    """Build models without reading or downloading weights, because those of a checkpoint follow.

    Yields:
        The weights that were not read, in order.
    """
    found: list[str] = []
    token = _skipped.set(found)
    try:
        yield found
    finally:
        _skipped.reset(token)


def is_skipped(source: Any) -> bool:
    """Return whether weights are not to be read now; then they are noted."""
    found = _skipped.get()
    if found is not None:
        found.append(str(source))
    return found is not None


def weights_file(source: str) -> Path:
    """Return a local file of weights; torchvision's are downloaded once.

    Args:
        source: a file, or a name such as ``"RetinaNet_ResNet50_FPN_Weights.COCO_V1"``.

    Raises:
        MissingFileError: neither a file nor a name that torchvision knows, or the download failed.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    try:
        url = torchvision.models.get_weight(source).url
    except (ValueError, AttributeError, KeyError):
        raise MissingFileError(
            f"weights {source!r}: no such file, and no torchvision weights with this name "
            "(such as 'RetinaNet_ResNet50_FPN_Weights.COCO_V1')"
        ) from None
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not path.is_file():
        digest = re.search(r"-([a-f0-9]{8,})\.", path.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), digest and digest[1])
        except OSError as error:  # URLError is one
            raise MissingFileError(
                f"weights {source!r} cannot be downloaded ({one_line(error, 80)}). Download {url} "
                f"elsewhere and give that file instead of the name, or save it as {path}. To start "
                "from a whole detector, give its file with --weights-from; then the weights of the "
                "backbone are not needed"
            ) from error
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint after its checksums were verified.

    ``torch.save`` writes a zip file with a CRC of each entry, which ``torch.load`` ignores. Tensors
    are mapped from the file, not read.

    Raises:
        InputError: the file is damaged, is not a checkpoint, or contains more than tensors and
            plain values.
        PermissionError: the file may not be read.
    """
    is_zip = True
    try:
        status = path.stat()
        is_zip = _verify(path, (status.st_size, status.st_mtime_ns, status.st_ino))
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except PermissionError:
        raise
    except Exception as error:
        unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and unsafe:
            raise InputError(_unsafe_message(path, unsafe[1])) from error
        reason = f"{type(error).__name__}: {one_line(error, 120)}"
        if path.is_file() and not path.stat().st_size:
            reason = "the file is empty"
        elif not is_zip:  # the error's text is about pickles
            reason = "it was not written by torch.save"
        raise InputError(f"{path} is not a checkpoint, or it is damaged ({reason})") from error
    if not isinstance(found, Mapping):
        raise InputError(f"{path} is not a checkpoint: it contains a {type(found).__name__}")
    return dict(found)


@lru_cache(maxsize=32)
def _verify(path: Path, state: tuple[int, ...]) -> bool:
    """Check the CRCs of a file written by torch.save; False if it has the format without them.

    Args:
        path: the file.
        state: size, time and number of the file, so that a file that does not change is read once.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
        with zipfile.ZipFile(file) as entries:
            damaged = entries.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    return True


def _unsafe_message(path: Path, found: str) -> str:
    whole, weights = str(path), f"{path.with_suffix('')}.weights.pth"
    return (
        f"{path} contains more than tensors and plain values ({found}), which safe loading rejects;"
        ' if you trust it, extract its weights with `python -c "import torch; c = torch.load('
        f"{whole!r}, map_location='cpu', weights_only=False); torch.save(c.get('state_dict', c), "
        f'{weights!r})"` and load that file'
    )


def load_weights(source: str) -> dict[str, Tensor]:
    """Return the state_dict of a local file or of named torchvision weights.

    Args:
        source: a file written by ``torch.save`` (a state_dict, or a dict with the key
            ``state_dict`` or ``model``), or a name such as ``"ResNet50_Weights.IMAGENET1K_V1"``.

    Raises:
        InputError: the file cannot be read.
        MissingFileError: see :func:`weights_file`.
    """
    return state_of(read_checkpoint(weights_file(source)))


def state_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, averaged ones first."""
    entries = (checkpoint.get(key) for key in _ENTRIES)
    state = next((entry for entry in entries if isinstance(entry, Mapping)), checkpoint)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
