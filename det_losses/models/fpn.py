"""A feature pyramid on any body, under torchvision's names."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from det_losses.models.norms import norm_layer

EXTRA_LEVELS = {"pool": ("pool",), "p6p7": ("p6", "p7"), None: ()}


class FPNBackbone(nn.Module):
    """A body whose feature maps go through an FPN (Lin et al., 1612.03144, 2017).

    The keys of its state_dict are those of torchvision's ``BackboneWithFPN``.

    Args:
        body: gives feature maps of falling resolution, as a list or a dict.
        in_channels: channels of each of them.
        out_channels: channels of every level of the pyramid.
        extra_levels: ``"pool"`` (Faster R-CNN: one more by max pooling), ``"p6p7"`` (RetinaNet:
            two more by convolutions on the last level) or None.
        fpn_norm: normalisation of the pyramid's convolutions: None, ``"GN"`` or ``"BN"``.

    Attributes:
        level_names: the names of the feature maps that ``forward`` returns, in order.
        image_mean, image_std: of the images that the body's weights were trained on; None is
            torchvision's, ImageNet's own.

    Raises:
        ValueError: unknown ``extra_levels``.
    """

    image_mean: list[float] | None = None
    image_std: list[float] | None = None

    def __init__(
        self,
        body: nn.Module,
        in_channels: Sequence[int],
        out_channels: int = 256,
        extra_levels: str | None = "pool",
        fpn_norm: str | None = None,
    ) -> None:
        super().__init__()
        if extra_levels not in EXTRA_LEVELS:
            raise ValueError(f"extra_levels must be 'pool', 'p6p7' or None, got {extra_levels!r}")
        extra: ExtraFPNBlock | None = None
        if extra_levels:
            p6p7 = extra_levels == "p6p7"
            extra = LastLevelP6P7(out_channels, out_channels) if p6p7 else LastLevelMaxPool()
        self.body = body
        self.fpn = FeaturePyramidNetwork(
            list(in_channels), out_channels, extra, norm_layer(fpn_norm)
        )
        self.out_channels = out_channels
        self.level_names = [*map(str, range(len(in_channels))), *EXTRA_LEVELS[extra_levels]]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the levels by name, the finest first."""
        features = self.body(images)
        maps = features.values() if isinstance(features, dict) else features
        return self.fpn({str(index): x for index, x in enumerate(maps)})


def freeze_stages(body: nn.Module, stages: Sequence[str], frozen_stages: int) -> None:
    """Make the stem and the first ``frozen_stages`` stages constant; 0 freezes nothing.

    Args:
        body: the network.
        stages: names of the submodules that end its stages, in order.
        frozen_stages: how many of them.

    Raises:
        ValueError: there are fewer stages.
    """
    if not 0 <= frozen_stages <= len(stages):
        raise ValueError(f"frozen_stages must be 0 to {len(stages)}, got {frozen_stages}")
    if frozen_stages == 0:
        return
    names = [name for name, _ in body.named_parameters()]
    end = f"{stages[frozen_stages - 1]}."
    last = max(i for i, name in enumerate(names) if name.startswith(end))
    for name in names[: last + 1]:
        body.get_parameter(name).requires_grad_(False)


def feature_channels(body: nn.Module, size: int = 64) -> list[int]:
    """Return the channels of each feature map that ``body`` gives."""
    was_training = body.training
    with torch.no_grad():
        features = body.eval()(torch.zeros(1, 3, size, size))
    body.train(was_training)
    return [x.shape[1] for x in (features.values() if isinstance(features, dict) else features)]
