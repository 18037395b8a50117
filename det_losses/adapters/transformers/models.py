"""Detectors of transformers for a training: small ones by name, any other from a folder."""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from det_losses.errors import InputError, MissingFileError, did_you_mean

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel

_RESNET = {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 128], "layer_type": "basic"}
_WIDTHS = {
    "d_model": 64,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "decoder_layers": 2,
    "num_queries": 30,
}
_DEFORMABLE = {
    **_WIDTHS,
    "encoder_hidden_dim": 64,
    "encoder_in_channels": [32, 64, 128],
    "decoder_in_channels": [64, 64, 64],
    "num_denoising": 20,
    "freeze_backbone_batch_norms": False,
}
# name -> class of the config, its arguments, class of the backbone's config, its arguments
_SMALL: Mapping[str, tuple[str, Mapping[str, Any], str, Mapping[str, Any]]] = MappingProxyType(
    {
        "detr_small": (
            "DetrConfig",
            {**_WIDTHS, "encoder_layers": 1, "use_timm_backbone": False, "auxiliary_loss": True},
            "ResNetConfig",
            {**_RESNET, "depths": [1, 1, 1, 1], "out_features": ["stage4"]},
        ),
        "rt_detr_v2_small": (
            "RTDetrV2Config",
            _DEFORMABLE,
            "RTDetrResNetConfig",
            {**_RESNET, "depths": [1, 1, 1, 1], "out_indices": [2, 3, 4]},
        ),
        "d_fine_small": (
            "DFineConfig",
            {**_DEFORMABLE, "hidden_size": 64},
            "RTDetrResNetConfig",
            {**_RESNET, "depths": [1, 1, 1, 1], "out_indices": [2, 3, 4]},
        ),
    }
)
SMALL_MODELS = tuple(_SMALL)


def import_transformers() -> ModuleType:
    """Import transformers with accelerate, which its Trainer needs; without network access.

    Raises:
        InputError: one of them is not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import accelerate  # noqa: F401
        import transformers
    except ModuleNotFoundError as error:
        raise InputError(
            f"this trainer needs {error.name}: pip install 'det-losses[transformers]'"
        ) from error
    return transformers


def small_config(name: str, **changes: Any) -> "PreTrainedConfig":
    """Return the config of a small DETR, RT-DETR v2 or D-FINE, to be trained from scratch.

    Args:
        name: one of :data:`SMALL_MODELS`.
        **changes: further arguments of the config's class.

    Raises:
        InputError: another name, or transformers is not installed.
    """
    if name not in _SMALL:
        raise InputError(
            f"model {name!r}: no such small model, and no folder with a config.json. The small "
            f"models are {', '.join(_SMALL)}. {did_you_mean(name, _SMALL)}".rstrip()
        )
    transformers = import_transformers()
    cls, arguments, backbone_cls, backbone = _SMALL[name]
    return getattr(transformers, cls)(
        backbone_config=getattr(transformers, backbone_cls)(**backbone), **{**arguments, **changes}
    )


def read_config(model: str | Path, **changes: Any) -> "PreTrainedConfig":
    """Return the config of a model: a small one, or that in a folder.

    Args:
        model: one of :data:`SMALL_MODELS`, or a folder with ``config.json``.
        **changes: further arguments of the config.

    Raises:
        InputError: no such model, or transformers is not installed.
        MissingFileError: the folder has no ``config.json``.
    """
    folder = Path(model)
    if not folder.is_dir():
        return small_config(str(model), **changes)
    if not (folder / "config.json").is_file():
        raise MissingFileError(f"{folder}: has no config.json of transformers")
    auto = import_transformers().AutoConfig
    return auto.from_pretrained(folder, local_files_only=True, **changes)


def build_model(
    model: "str | Path | PreTrainedConfig", classes: tuple[str, ...], seed: int
) -> "PreTrainedModel":
    """Build a detector for these classes; what is not pretrained is initialised by the seed.

    Args:
        model: one of :data:`SMALL_MODELS`, a config, or a folder as ``save_pretrained`` writes it:
            with weights, or with ``config.json`` only.
        classes: names of the classes by label.
        seed: of the random generators.

    Raises:
        InputError: no such model, or transformers is not installed.
        MissingFileError: the folder has no ``config.json``.
    """
    transformers = import_transformers()
    auto = transformers.AutoModelForObjectDetection
    labels = {
        "id2label": dict(enumerate(classes)),
        "label2id": {name: label for label, name in enumerate(classes)},
    }
    transformers.set_seed(seed)
    if not isinstance(model, (str, Path)):
        model = copy.deepcopy(model)
        model.update(labels)
        return auto.from_config(model)
    config = read_config(model, **labels)
    files = [file for kind in ("*.safetensors", "*.bin") for file in Path(model).glob(kind)]
    if not files:
        return auto.from_config(config)
    return auto.from_pretrained(
        model, config=config, local_files_only=True, ignore_mismatched_sizes=True
    )


def build_processor(
    model: "PreTrainedModel", folder: str | Path | None, image_size: int | None
) -> "BaseImageProcessor":
    """Return the image processor of a model: that in its folder, or the default of its kind.

    Args:
        model: the model.
        folder: where ``preprocessor_config.json`` may be.
        image_size: width and height that images are resized to; None: as the processor says.
    """
    transformers = import_transformers()
    size = {} if image_size is None else {"size": {"height": image_size, "width": image_size}}
    if folder is not None and (Path(folder) / "preprocessor_config.json").is_file():
        return transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, **size
        )
    detr = model.config.model_type == "detr"
    return (transformers.DetrImageProcessor if detr else transformers.RTDetrImageProcessor)(**size)
