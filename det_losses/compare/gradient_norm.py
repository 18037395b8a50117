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
    included. Delta is the output of the head's last layer, of all levels and anchors, whatever the
    space of the loss; so losses on deltas and on decoded boxes are comparable.

    The norm is measured on a copy of the model in training mode, in full precision. Weights,
    buffers, the state of losses and the random generators do not change, so a second call with the
    same arguments gives the same number. A loss with a running state is measured in the state it
    has.

    Args:
        model: a detector of this project.
        batch: images and targets as the data loader gives them.
        slot: a box slot, such as ``"loss_bbox"``.

    Returns:
        The norm, summed in float64. 0 where no anchor or proposal of the batch is positive. The
        output of the last layer is the encoded deltas, or in FCOS with ``loss_dfl`` the logits of
        the sides' distributions; norms are comparable within one head only.

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
        batch: images and targets as the data loader gives them.
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


class _SideBySide(nn.Module):
    """Losses of one space in one slot: keeps the value of each and returns their sum."""

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
    probe = copy.deepcopy(_SideBySide(losses)).to(device)
    # With this memo, every place of the copy that would hold the slot's loss holds the probe.
    model = copy.deepcopy(model, {id(model.losses[slot]): probe}).train().requires_grad_(False)
    outputs: list[Tensor] = []

    def start_graph(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    model.get_submodule(layer).register_forward_hook(start_graph)
    with generators_kept(), torch.enable_grad():
        model(**model.data_preprocessor(batch, True), mode="loss")
        return {
            label: _norm(torch.autograd.grad(value, outputs, retain_graph=True))
            for label, value in zip(losses, probe.values, strict=True)
        }


def _norm(gradients: Sequence[Tensor]) -> float:
    squares = [gradient.cpu().double().square().sum() for gradient in gradients]
    return torch.stack(squares).sum().sqrt().item()


class FixedBatches:
    """Training batches that are the same at every access.

    The order of images is a permutation by (seed, epoch). Their augmentation is that of
    (seed, epoch) too, where the dataset has ``set_epoch``, else that of generators seeded by the
    batch's number. A batch is read at access, and batches of one epoch share no image.

    Args:
        dataset: with its augmentation.
        collate: makes a batch of a list of samples.
        batch_size: samples a batch; of a smaller dataset all are in every batch.
        seed: of order and augmentation.
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
        """Return a batch; there is one for every number from 0 on."""
        epoch, place = divmod(number, max(1, len(self._dataset) // self._batch_size))
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._dataset))
        chosen = order[place * self._batch_size :][: self._batch_size]
        if hasattr(self._dataset, "set_epoch"):
            self._dataset.set_epoch(epoch, self._seed)
        with generators_kept(self._seed, number):
            return self._collate([self._dataset[index] for index in chosen.tolist()])
