"""From samples to a batch: images differ in size, so nothing is stacked."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from det_losses.registry import FUNCTIONS


@FUNCTIONS.register_module()
def detection_collate(samples: Sequence[tuple[Tensor, dict[str, Any]]]) -> dict[str, list]:
    """Gather samples ``(image, target)`` into ``dict(images=[...], targets=[...])``."""
    return {
        "images": [image for image, _ in samples],
        "targets": [target for _, target in samples],
    }
