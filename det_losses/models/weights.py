"""Pretrained weights: read those of a detector, and load what fits."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from det_losses.errors import InputError, one_line
from det_losses.files import file_hash
from det_losses.models.mmdetection import from_mmdetection, is_mmdetection
from det_losses.models.weight_files import (
    is_skipped,
    read_checkpoint,
    state_of,
    weights_file,
)

WeightsConfig = str | Mapping[str, Any] | None

BACKGROUND = "(background)"
_NAMED = 3  # tensors that a message names
_STORED = 10  # names of tensors that a record has
_PREFIXES = re.compile(r"^(module\.)?(detector\.)?")
# Keys of old torchvision versions -> today's, as its modules rename them when they load.
_RENAMED = (
    (re.compile(r"(.*fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)"), r"\1.0.\2"),
    (re.compile(r"(rpn\.head\.conv)\.(weight|bias)"), r"\1.0.0.\2"),
)
_OLD_TOWER = re.compile(r"(head\.\w+_head\.conv)\.(\d+)\.(weight|bias)")


@dataclass(frozen=True)
class Pretrained:
    """The weights of a detector, read from a file.

    Attributes:
        source: the file or name as given.
        file: the file.
        sha256: its hash.
        layout: whose names of tensors it has: ``"det_losses"``, ``"torchvision"`` or
            ``"mmdetection"``.
        state: the tensors under torchvision's names.
        classes: the names of the classes or channels that it was trained on; None: unknown.
        wanted: the names of the data's classes; None: unknown.
        notes: what differs from the model that was trained.
    """

    source: str
    file: Path
    sha256: str
    layout: str
    state: dict[str, Tensor]
    classes: Sequence[str] | None = None
    wanted: Sequence[str] | None = None
    notes: list[str] = field(default_factory=list)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors of a submodule, by their names in it."""
        return {k.removeprefix(prefix): v for k, v in self.state.items() if k.startswith(prefix)}


def read_pretrained(weights: WeightsConfig, detector: str) -> Pretrained | None:
    """Read the weights of a detector.

    Args:
        weights: a file or a name of torchvision's weights; or a dict with this as ``file`` and
            optionally ``sha256``, which the file must have, and ``classes``, the names of the
            data's classes.
        detector: the name of its class.

    Returns:
        None without weights, or within :func:`weights_skipped`.

    Raises:
        InputError: the file cannot be read or has another hash, or it is a detector of mmdetection
            that this package cannot build.
        MissingFileError: see :func:`weights_file`.
    """
    entries = {"file": weights} if isinstance(weights, str) else dict(weights or {})
    if not entries or is_skipped(entries.get("file")):
        return None
    if not isinstance(entries.get("file"), str) or entries.keys() - {"file", "sha256", "classes"}:
        raise InputError(
            "weights must be a file or a name, or a dict of `file` and optionally `sha256` and "
            f"`classes`; got {one_line(weights)!r}"
        )
    file = weights_file(entries["file"])
    digest = file_hash(file)
    if entries.get("sha256") not in (None, digest):
        raise InputError(
            f"weights {file}: the file was changed; its SHA-256 is {digest[:12]}..., not "
            f"{entries['sha256'][:12]}... as when the comparison was started. Restore the file, or "
            "start a new comparison"
        )
    checkpoint = read_checkpoint(file)
    state, layout, notes = state_of(checkpoint), "torchvision", []
    if any(name.removeprefix("module.").startswith("detector.") for name in state):
        layout = "det_losses"
    # Losses with state start from nothing.
    state = {_PREFIXES.sub("", k): v for k, v in state.items() if not k.startswith("losses.")}
    meta = checkpoint.get("meta") or {}
    if is_mmdetection(state):
        layout = "mmdetection"
        state, notes = from_mmdetection(state, meta, detector, str(file))
    classes = _classes_of(meta) or _torchvision_categories(entries["file"], file)
    wanted = entries.get("classes")
    return Pretrained(entries["file"], file, digest, layout, state, classes, wanted, notes)


def _classes_of(meta: Mapping[str, Any]) -> list[str] | None:
    data = meta.get("dataset_meta") or {}
    found = data.get("classes") or data.get("CLASSES") or meta.get("CLASSES")
    return list(map(str, found)) if isinstance(found, (list, tuple)) else None


def _torchvision_categories(source: str, file: Path) -> list[str] | None:
    """Return the channels' names of torchvision's weights, known by name or file name."""
    weights = _torchvision_weights(source, file)
    return list(weights.meta["categories"]) if weights else None


def _torchvision_weights(source: str, file: Path) -> Any:
    for name in torchvision.models.list_models(module=torchvision.models.detection):
        for weights in torchvision.models.get_model_weights(name):
            if source == str(weights) or weights.url.endswith(f"/{file.name}"):
                return weights
    return None


class _Model(Protocol):
    """What loading needs to know of a detector; see ``Detector``."""

    detector: nn.Module
    class_layers: Sequence[str]
    channel_dim: int

    def channel_names(self, classes: Sequence[str] | None) -> list[str | None]: ...


def load_pretrained(model: _Model, pretrained: Pretrained) -> dict[str, Any]:
    """Load all tensors whose name and shape fit; class layers take the rows of equal classes.

    Returns:
        A record: ``source``, ``file``, ``sha256``, ``layout``, the numbers of ``tensors`` in the
        model, ``loaded``, ``anew`` and ``unused`` (in the file), the first ``anew_names`` and
        ``unused_names``, ``class_layer`` (what happened to it) and ``notes``.

    Raises:
        InputError: no tensor fits, or the normalisation layers are of another kind.
    """
    own = {k: v for k, v in model.detector.state_dict().items() if not _is_counter(k)}
    found = _renamed(pretrained.state, own)
    _check_norms(pretrained, own, found)
    fits = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    for key in [key for key in own if key.rpartition(".")[0] in model.class_layers]:
        fits.pop(key, None)
    if not fits:
        raise InputError(_nothing_fits(pretrained, own, found))
    rows, class_layer, complete = _class_layers(model, pretrained, own, found)
    with torch.no_grad():
        for key, tensor in {**fits, **rows}.items():
            own[key].copy_(tensor)
    loaded = {*fits, *(rows if complete else ())}
    anew = [key for key in own if key not in loaded]
    unused = [key for key in found if key not in own]
    return {
        "source": pretrained.source,
        "file": str(pretrained.file),
        "sha256": pretrained.sha256,
        "layout": pretrained.layout,
        "tensors": len(own),
        "loaded": len(loaded),
        "anew": len(anew),
        "anew_names": anew[:_STORED],
        "unused": len(unused),
        "unused_names": unused[:_STORED],
        "class_layer": class_layer,
        "notes": [*pretrained.notes, *_notes(model, pretrained, own, found)],
    }


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")  # of batch norm; not used here


def _renamed(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under today's names of torchvision."""
    found = {}
    for key, value in state.items():
        if _is_counter(key):
            continue
        if key not in own:
            for pattern, replacement in _RENAMED:
                key = pattern.fullmatch(key).expand(replacement) if pattern.fullmatch(key) else key
            # The convolutions of a tower were numbered together with their activations.
            if tower := _OLD_TOWER.fullmatch(key):
                renamed = f"{tower[1]}.{int(tower[2]) // 2}.0.{tower[3]}"
                key = renamed if renamed in own else key
        found[key] = value
    return found


def _check_norms(
    pretrained: Pretrained, own: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> None:
    """Raise InputError if batch norm would be loaded into another kind of norm, or the reverse."""
    for one, other in ((own, found), (found, own)):
        for key in one:
            layer = key.removesuffix(".running_mean")
            if layer != key and f"{layer}.weight" in other and key not in other:
                kinds = ["batch", "group"] if one is found else ["group", "batch"]
                raise InputError(
                    f"weights {pretrained.source}: {layer} is a {kinds[0]} norm in the file and a "
                    f"{kinds[1]} norm in the model; set the norm of the model, such as "
                    f"model.backbone.norm={'FrozenBN' if one is found else 'GN'}"
                )


def _nothing_fits(
    pretrained: Pretrained, own: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> str:
    first = next(iter(found), None)
    content = f"it has {first!r}" if first else "it has no tensors"
    advice = "rename its keys, or give a detector with this backbone"
    if any(key.startswith(("conv1.", "layer1.", "features.", "blocks.")) for key in found):
        advice = "these are weights of a backbone: give them as model.backbone.weights"
    return (
        f"weights {pretrained.source}: no tensor of the file has the name and shape of one in the "
        f"model ({content}, the model has {next(iter(own))!r}); {advice}"
    )


def _class_layers(
    model: _Model,
    pretrained: Pretrained,
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], str | None, bool]:
    """Return the tensors of the class layers, how they differ from the file's, and if all is its.

    The text is None if they are equal.
    """
    keys = [key for key in own if key.rpartition(".")[0] in model.class_layers and key in found]
    ours, rows, kept, sizes = model.channel_names(pretrained.wanted), {}, [], []
    for key in keys:
        per = own[key].shape[0] // len(ours)  # rows of a channel: anchors, or sides of a box
        sizes.append(found[key].shape[0] // per)
        theirs = _file_channels(model, pretrained.classes, sizes[-1])
        if found[key].shape[1:] == own[key].shape[1:] and found[key].shape[0] % per == 0:
            tensor, kept = _rows(own[key], found[key], ours, theirs, model.channel_dim)
            rows.update({} if tensor is None else {key: tensor})
    layers = ", ".join(layer.rpartition(".")[2] for layer in model.class_layers)
    if not keys:
        return {}, f"class layer ({layers}): made anew, the file has none", False
    if len(rows) == len(keys) and kept is None:
        return rows, None, True
    if not rows:
        other = " of other classes" if sizes[0] == len(ours) else ""
        text = f"made anew, with {len(ours)} channels; the file has {sizes[0]}{other}"
        return {}, f"class layer ({layers}): {text}", False
    rest = [name for name in pretrained.wanted if name not in kept]
    anew = f"; made anew for {_listed(rest)}" if rest else ""
    text = f"class layer ({layers}): loaded by name for {_listed(kept)}{anew}"
    return rows, text, len(rows) == len(keys) and not rest


def _rows(
    own: Tensor,
    found: Tensor,
    ours: Sequence[str | None],
    theirs: Sequence[str | None] | None,
    dim: int,
) -> tuple[Tensor | None, list[str] | None]:
    """Return a class tensor and the classes whose rows are the file's; None: all, in one piece."""
    if theirs is None or not any(ours) or list(ours) == list(theirs):
        return (found, None) if found.shape == own.shape else (None, [])
    if (BACKGROUND in ours) != (BACKGROUND in theirs):
        return None, []  # trained with another kind of loss
    common = [name for name in ours if name and name in theirs]
    if not set(common) - {BACKGROUND}:
        return None, []
    result = own.clone()
    views = [
        tensor.unflatten(0, (len(names), -1) if dim == 0 else (-1, len(names))).movedim(dim, 0)
        for tensor, names in ((result, ours), (found, theirs))
    ]
    for name in common:
        views[0][ours.index(name)] = views[1][theirs.index(name)]
    return result, [name for name in common if name != BACKGROUND]


def _file_channels(
    model: _Model, classes: Sequence[str] | None, count: int
) -> list[str | None] | None:
    """Return the name of each channel of the file; None if unknown."""
    names: list[str | None] = [None if name == "N/A" else name for name in classes or ()]
    first = model.channel_dim == 0  # the background is the first channel
    if len(names) == count:
        return [BACKGROUND if first and name == "__background__" else name for name in names]
    if len(names) + 1 == count and names:
        return [BACKGROUND, *names] if first else [*names, BACKGROUND]
    return None


def _notes(
    model: _Model,
    pretrained: Pretrained,
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
) -> list[str]:
    notes = []
    norms = [key for key, value in own.items() if _is_norm(key, value) and key not in found]
    extra = [key for key, value in found.items() if _is_norm(key, value) and key not in own]
    for keys, where in ((norms, "the file"), (extra, "the model")):
        if keys:
            notes.append(f"{where} lacks the norm layer {keys[0].removesuffix('.weight')}")
    weights = _torchvision_weights(pretrained.source, pretrained.file)
    frozen = [m for m in model.detector.modules() if isinstance(m, FrozenBatchNorm2d) and m.eps]
    if weights and weights.name == "COCO_V1" and "resnet50" in weights.url and frozen:
        notes.append(
            "torchvision uses these weights with model.backbone.norm_eps=0; the model has "
            f"{frozen[0].eps:g}"
        )
    return notes


def _is_norm(key: str, value: Tensor) -> bool:
    return key.endswith(".weight") and value.dim() == 1


def describe_loaded(record: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """Return lines about loaded weights, each with whether it is a warning."""
    head = (
        f"weights: {record['loaded']} of the model's {record['tensors']} tensors are loaded from "
        f"{record['source']} ({record['layout']} layout, SHA-256 {record['sha256'][:12]}), "
        f"{record['anew']} made anew, {record['unused']} of the file unused"
    )
    lines = [(False, head)]
    if record["class_layer"]:
        lines.append((False, record["class_layer"]))
    lines += [(True, f"weights: {note}") for note in record["notes"]]
    if 2 * record["loaded"] < record["tensors"]:
        names = _listed(record["anew_names"], record["anew"])
        lines.append((True, f"weights: less than half of the model is loaded; missing: {names}"))
    return lines


def _listed(names: Sequence[str], count: int | None = None) -> str:
    rest = (count or len(names)) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
