"""The norm of a box loss's gradient with respect to the raw box output of the head."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from det_losses.generators import generators_kept
from det_losses.models.slots import box_layer_name


def gradient_norm(model: nn.Module, batch: Mapping[str, Any], slot: str) -> float:
    r"""Return the L2 norm of a slot's gradient with respect to the raw box output.

    .. math:: \lVert \partial L / \partial \Delta \rVert_2

    L is the slot's entry of the dict of losses: after the head's normalisation, ``loss_weight``
    included. Delta is the output of the head's last layer, of all levels and anchors,
    regardless of the space of the loss. So losses on deltas and on decoded boxes are comparable.

    The norm is measured on a copy of the model in training mode, in full precision. Weights,
    buffers, the state of losses and the random generators do not change, so a second call with the
    same arguments gives the same number. A loss with running statistics is measured in its current
    state.

    Args:
        model: a detector of this project.
        batch: a batch of the data loader.
        slot: a box slot, such as ``"loss_bbox"``.

    Returns:
        The norm, summed in float64; 0 if no anchor or proposal of the batch is positive. The output
        of the last layer is the encoded deltas, or in FCOS with ``loss_dfl`` the logits of the
        sides' distributions. Norms are comparable within one head only.

    Raises:
        InputError: the detector has no such box slot.
    """
    model = getattr(model, "module", model)
    box_layer_name(type(model), slot)
    return gradient_norms(model, batch, slot, {slot: model.losses[slot]})[slot]


def gradient_norms(
    model: nn.Module, batch: Mapping[str, Any], slot: str, losses: Mapping[str, nn.Module]
) -> dict[str, float]:
    """Return the :func:`gradient_norm` that each of several losses would have in a slot.

    All losses of one space share a pass through the model, and all passes use the same random
    numbers, so the same anchors and proposals are sampled for every loss.

    Args:
        model: a detector of this project.
        batch: a batch of the data loader.
        slot: a box slot.
        losses: label -> box loss.

    Returns:
        Label -> norm.

    Raises:
        InputError: the detector has no such box slot.
    """
    model = getattr(model, "module", model)
    groups: dict[Any, dict[str, nn.Module]] = {}
    for label, loss in losses.items():
        groups.setdefault((loss.space, loss.inputs), {})[label] = loss
    found: dict[str, float] = {}
    for group in groups.values():
        found |= _norms_of_group(model, batch, slot, group)
    return {label: found[label] for label in losses}


class _LossGroup(nn.Module):
    """Several losses of one space in one slot: stores the value of each and returns their sum."""

    def __init__(self, losses: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._losses = nn.ModuleList(losses.values())
        first = self._losses[0]
        self.space, self.inputs = first.space, first.inputs
        self.values: list[Tensor] = []

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        self.values = [loss(*args, **kwargs) for loss in self._losses]
        return torch.stack(self.values).sum()


def _norms_of_group(
    model: nn.Module, batch: Mapping[str, Any], slot: str, losses: Mapping[str, nn.Module]
) -> dict[str, float]:
    layer = box_layer_name(type(model), slot)
    device = next(model.parameters()).device
    group = copy.deepcopy(_LossGroup(losses)).to(device)
    # With this memo, the copy has the group wherever the model has the slot's loss.
    model = copy.deepcopy(model, {id(model.losses[slot]): group}).train().requires_grad_(False)
    outputs: list[Tensor] = []

    def start_graph(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    model.get_submodule(layer).register_forward_hook(start_graph)
    with generators_kept(), torch.enable_grad():
        model(**model.data_preprocessor(batch, True), mode="loss")
        return {
            label: _norm(torch.autograd.grad(value, outputs, retain_graph=True))
            for label, value in zip(losses, group.values, strict=True)
        }


def _norm(gradients: Sequence[Tensor]) -> float:
    squares = [gradient.cpu().double().square().sum() for gradient in gradients]
    return torch.stack(squares).sum().sqrt().item()


class FixedBatches:
    """Training batches that are identical at every access.

    The order of images is a permutation by (seed, epoch). Their augmentation is that of
    (seed, epoch) too if the dataset has ``set_epoch``; otherwise the generators are seeded with the
    batch's number. A batch is loaded at access. Batches of one epoch share no image.

    Args:
        dataset: the dataset, with its augmentation.
        collate: turns a list of samples into a batch.
        batch_size: samples per batch; a smaller dataset is a single batch.
        seed: seed of order and augmentation.
    """

    def __init__(
        self,
        dataset: Dataset,
        collate: Callable[[Sequence[Any]], Mapping[str, Any]],
        batch_size: int,
        seed: int = 0,
    ) -> None:
        self._dataset, self._collate = dataset, collate
        self._batch_size, self._seed = batch_size, seed

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        """Return the batch of a number of at least 0; numbers are unlimited."""
        epoch, place = divmod(number, max(1, len(self._dataset) // self._batch_size))
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._dataset))
        chosen = order[place * self._batch_size :][: self._batch_size]
        if hasattr(self._dataset, "set_epoch"):
            self._dataset.set_epoch(epoch, self._seed)
        with generators_kept(self._seed, number):
            return self._collate([self._dataset[index] for index in chosen.tolist()])
