"""How hard a box loss pulls: the gradient with respect to the head's raw box output."""

import contextlib
import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from det_losses.models.box_outputs import box_layer_name


def gradient_norm(
    model: nn.Module, batch: Mapping[str, Any], slot: str, loss: nn.Module | None = None
) -> float:
    r"""Return the L2 norm of a slot's gradient with respect to the raw box output.

    .. math:: \lVert \partial L / \partial \Delta \rVert_2

    L is the slot's entry of the dict of losses: after the head's normalisation, ``loss_weight``
    included. Delta are the encoded deltas as the head's last layer puts them out, of all levels and
    anchors, whatever space the loss lives in; so losses on deltas and on decoded boxes compare.

    It is measured on a copy of the model in training mode, in full precision. Weights, buffers, the
    state of losses and the random generators stay as they are, so that a second call with the same
    arguments gives the same number. A loss with a running state is measured in the state it has.

    Args:
        model: a detector of this project.
        batch: images and targets as the data loader gives them.
        slot: a box slot, such as ``"loss_bbox"``.
        loss: takes the place of the slot's own loss, for this call.

    Returns:
        The norm, summed in float64. 0 where no anchor or proposal of the batch is positive.

    Raises:
        ValueError: the detector has no such box slot.
    """
    model = getattr(model, "module", model)
    layer = box_layer_name(type(model), slot)
    device = next(model.parameters()).device
    # In the copy, every place that holds the slot's loss holds the other one instead.
    memo = {} if loss is None else {id(model.losses[slot]): copy.deepcopy(loss).to(device)}
    model = copy.deepcopy(model, memo).train().requires_grad_(False)
    outputs: list[Tensor] = []

    def start_graph(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    model.get_submodule(layer).register_forward_hook(start_graph)
    with generators_kept(), torch.enable_grad():
        losses = model(**model.data_preprocessor(batch, True), mode="loss")
        gradients = torch.autograd.grad(losses[slot], outputs)
    squares = [gradient.cpu().double().square().sum() for gradient in gradients]
    return torch.stack(squares).sum().sqrt().item()


class FixedBatches:
    """Training batches that are the same whenever they are asked for.

    Images follow a permutation of the dataset by (seed, epoch), and their augmentation is that of
    (seed, epoch) too, where the dataset has ``set_epoch``, else that of generators seeded by the
    batch's number. A batch is read when it is asked for, and batches of one epoch share no image.

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


@contextlib.contextmanager
def generators_kept(*numbers: int) -> Iterator[None]:
    """Give Python's, numpy's and torch's generators back as they were; seed them by ``numbers``."""
    python, old_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            if numbers:
                seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
                random.seed(seed)
                np.random.seed(seed)
                torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(old_numpy)
