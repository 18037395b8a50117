"""Anchors that stay exact under autocast."""

from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from det_losses.tensors import upcast


class FullPrecisionAnchors(AnchorGenerator):
    """torchvision's generator, whose anchors are float32 for features of half precision too.

    torchvision gives them the precision of the features. In bfloat16 an anchor of 8 px at x = 1280
    has no width.
    """

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return the anchors of each image; of the features only size, type and device count."""
        return super().forward(image_list, [upcast(level[:1, :1]) for level in feature_maps])
