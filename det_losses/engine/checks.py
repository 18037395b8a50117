"""Checks of a config before training or testing starts."""

import contextlib
import os
import traceback
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from types import FrameType
from typing import Any

from mmengine.device import get_device
from mmengine.utils import is_seq_of

from det_losses.errors import (
    InputError,
    InputTypeError,
    MissingFileError,
    NotRegisteredError,
    UserError,
)
from det_losses.registry import OPTIMIZERS, SCOPE, find

_NO_AMP = ("cpu", "mps")  # devices that mmengine's AmpOptimWrapper does not support


def fill_from_data(model: MutableMapping[str, Any], metainfo: Mapping[str, Sequence[Any]]) -> None:
    """Complete the config of a model from its training data.

    ``num_classes`` that is absent or None becomes the number of classes;
    ``class_to_channel="category_id"`` becomes the list of official category ids, for weights whose
    channels are numbered by them, such as torchvision's with 91 channels.

    Args:
        model: config of the model, changed in place.
        metainfo: the dataset's ``classes`` and ``category_ids``.

    Raises:
        InputError: ``num_classes`` differs from the number of classes of the data.
    """
    classes = metainfo["classes"]
    given = model.get("num_classes")
    if given not in (None, len(classes)):
        raise InputError(
            f"model.num_classes is {given}, but the data has {len(classes)} classes "
            f"({join_names(classes)}); remove num_classes to use that number"
        )
    model["num_classes"] = len(classes)
    if model.get("class_to_channel") == "category_id":
        model["class_to_channel"] = list(metainfo["category_ids"])


def check_same_classes(
    train: Mapping[str, Sequence[str]], val: Mapping[str, Sequence[str]]
) -> None:
    """Raise InputError if training and validation data differ in their classes or their order."""
    ours, theirs = list(train["classes"]), list(val["classes"])
    if ours == theirs:
        return
    parts = [
        f"only in {where}: {join_names(names)}"
        for where, names in (
            ("training", [name for name in ours if name not in theirs]),
            ("validation", [name for name in theirs if name not in ours]),
        )
        if names
    ]
    orders = f"in a different order: {join_names(ours)} and {join_names(theirs)}"
    found = "; ".join(parts) or orders
    raise InputError(
        f"training and validation data have different classes, {found}. Set the same `classes` in "
        "both datasets, and keep_negatives=True to keep the images without them"
    )


def check_amp(optim_wrapper: Mapping[str, Any] | None) -> None:
    """Raise InputError for mixed precision on a machine without an accelerator."""
    kind = str((optim_wrapper or {}).get("type"))
    if "AmpOptimWrapper" in kind and get_device() in _NO_AMP:
        raise InputError(
            f"mixed precision (--amp, optim_wrapper.type={kind!r}) needs a GPU, but torch finds "
            f"only the device {get_device()!r}; remove it"
        )


def check_optimizer(optim_wrapper: Mapping[str, Any] | None) -> None:
    """Raise NotRegisteredError for an optimizer that does not exist.

    mmengine's own error does not name it.
    """
    optimizer = (optim_wrapper or {}).get("optimizer")
    kind = optimizer.get("type") if isinstance(optimizer, Mapping) else None
    if isinstance(kind, str):
        find(OPTIMIZERS, kind)


def check_checkpoint(load_from: str | None) -> None:
    """Raise MissingFileError if ``load_from`` is a local path that does not exist."""
    if load_from and "://" not in load_from and not os.path.isfile(os.path.expanduser(load_from)):
        raise MissingFileError(f"checkpoint {load_from!r}: no such file")


def join_names(names: Sequence[str], limit: int = 8) -> str:
    """Join names to one line: all of them, or the first ``limit`` and their total number."""
    if not is_seq_of(list(names), str) or len(names) <= limit:
        return ", ".join(map(str, names))
    return ", ".join([*names[:limit], f"... ({len(names)} in total)"])


_CONVERTED = ((TypeError, InputTypeError), (ValueError, InputError), (KeyError, NotRegisteredError))


@contextlib.contextmanager
def config_errors() -> Iterator[None]:
    """Convert exceptions that a mistake in the config causes in mmengine or in a constructor.

    mmengine calls registered classes with arguments from the config. A TypeError, ValueError or
    KeyError is an error in the config if mmengine's own code raised it (an unknown ``type``, an
    unexpected argument) or if the constructor itself raised it (an invalid value). If it was raised
    in a deeper call or by this package, it is a bug and is not converted.

    Raises:
        InputError, InputTypeError, NotRegisteredError: the converted exceptions.
    """
    try:
        yield
    except UserError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        own = frames[-1].f_globals["__name__"].startswith(f"{SCOPE}.")
        constructors = []
        while frames[-1].f_code.co_name in ("__init__", "__new__"):
            constructors.append(frames.pop())
        caller = frames[-1].f_globals["__name__"]
        if own or not caller.startswith("mmengine."):
            raise
        known = frames[-1].f_locals
        if isinstance(error, KeyError) and {"registry", "obj_type"} <= known.keys():
            find(known["registry"], known["obj_type"])  # raises, with the nearest names
        cls = f"{_class_of(constructors[-1])}: " if constructors else ""
        kind = next(ours for builtin, ours in _CONVERTED if isinstance(error, builtin))
        reason = error.args[0] if error.args else repr(error)  # KeyError quotes its message
        raise kind(f"config: {cls}{reason}") from error


def _class_of(constructor: FrameType) -> str:
    first = constructor.f_locals[constructor.f_code.co_varnames[0]]
    return (first if isinstance(first, type) else type(first)).__name__
