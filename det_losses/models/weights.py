"""Weights from a local file or by torchvision's name."""

from pathlib import Path

import torch
import torchvision
from torch import Tensor


def load_weights(weights: str) -> dict[str, Tensor]:
    """Return the state_dict of a local file or of torchvision's weights of that name.

    Args:
        weights: a file as ``torch.save`` writes it (a state_dict, or a dict that holds one as
            ``state_dict`` or ``model``), or a name such as ``"ResNet50_Weights.IMAGENET1K_V1"``,
            which torchvision downloads once.

    Raises:
        ValueError: a file that holds no tensors, or more than tensors.
        FileNotFoundError: neither a file nor a name that torchvision knows.
    """
    if Path(weights).is_file():
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"weights {weights!r}: no file of tensors that torch.load can read with "
                f"weights_only=True ({type(error).__name__})"
            ) from error
        return state.get("state_dict", state.get("model", state))
    try:
        entry = torchvision.models.get_weight(weights)
    except (ValueError, AttributeError, KeyError):
        raise FileNotFoundError(
            f"weights {weights!r}: no such file, and no torchvision weights of that name "
            "(such as 'ResNet50_Weights.IMAGENET1K_V1')"
        ) from None
    return entry.get_state_dict(progress=True, check_hash=True)
