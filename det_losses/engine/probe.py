"""The gradient probe: is a model's reported loss the one that its config names?"""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from det_losses.engine.fingerprint import configuration
from det_losses.engine.untouched import cloned, untouched
from det_losses.generators import generator_states, generators_kept, set_generator_states
from det_losses.losses.core.state import on_this_rank_alone

TOLERANCE = 1e-4  # of the relative difference of two gradients that are one


class LossProofError(RuntimeError):
    """A slot's loss is not the one that the config names, or training does not use it."""


def probe_losses(
    model: nn.Module, named: Mapping[str, nn.Module], batches: Iterable[Any]
) -> dict[str, float | None]:
    r"""Compare the gradient of each reported loss with that of the loss that the config names.

    .. math:: \lVert g - \hat g \rVert / \lVert \hat g \rVert

    g is the gradient of the entry ``slot`` of the model's own dict of losses with respect to the
    trained parameters (those outside the backbone, where there are some). The other is that of the
    named loss on the tensors with which the model called ``model.losses[slot]``, with the same
    buffers and random numbers. The model is in training mode and full precision. Weights, buffers,
    modes, the state of losses and all generators are afterwards what they were.

    Args:
        model: with a ModuleDict ``losses``; not its DDP wrapper.
        named: the loss of each slot, newly built.
        batches: as the data loader gives them. The next one is taken only for slots that had no
            finite gradient other than zero, as in a batch without positives.

    Returns:
        For each slot the relative difference; 0 for a loss of weight 0 whose gradient is zero;
        None if no batch gave a gradient.

    Raises:
        LossProofError: the model holds a loss of another type or other parameters, or a difference
            is above 1e-4.
    """
    for slot, loss in named.items():
        if configuration(model.losses[slot]) != configuration(loss):
            raise LossProofError(
                f"{slot}: the config names {loss!r}, but the model holds {model.losses[slot]!r}"
            )
    found: dict[str, float | None] = dict.fromkeys(named)
    with generators_kept(0):
        for batch in batches:
            with untouched(model), on_this_rank_alone(), torch.enable_grad():
                missing = {slot: loss for slot, loss in named.items() if found[slot] is None}
                found.update(_probe_batch(model, missing, batch))
            if None not in found.values():
                break
    return found


def _probe_batch(
    model: nn.Module, named: Mapping[str, nn.Module], batch: Any
) -> dict[str, float | None]:
    model.train()
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.eval()  # its statistics would wait for processes that do not probe
    calls = {slot: _Calls(model.losses[slot]) for slot in named}
    data = model.data_preprocessor(batch, True)
    inputs = ((), data) if isinstance(data, Mapping) else (data, {})
    try:
        reported = model(*inputs[0], **inputs[1], mode="loss")
    finally:
        for each in calls.values():
            each.stop()
    parameters = _trained(model)
    found = {}
    for slot, loss in named.items():
        ours = _gradient(_total(reported.get(slot)), parameters)
        theirs = _gradient(calls[slot].repeat(loss), parameters)
        found[slot] = _difference(ours, theirs)
        if found[slot] is None and getattr(loss, "loss_weight", 1) == 0:
            found[slot] = 0.0
        if found[slot] is not None and found[slot] > TOLERANCE:
            raise LossProofError(
                f"{slot}: the config names {loss!r}, but the gradient of the model's {slot} is not "
                f"that loss's: {_reason(slot, found[slot], len(calls[slot].inputs), reported)}"
            )
    return found


def _reason(slot: str, difference: float, calls: int, reported: Mapping[str, Any]) -> str:
    if slot not in reported:
        return f"the model reports no {slot}, only {', '.join(reported)}"
    if not calls:
        return f"the model computes it without calling model.losses[{slot!r}]"
    return (
        f"the two differ by {difference:.3g} of its norm (at most {TOLERANCE:g}), model.losses"
        f"[{slot!r}] was called {calls} time(s). The model must report what the loss returns, and "
        "the loss must keep its state in buffers"
    )


class _Calls:
    """What a loss is called with from now on, and the state it was in before."""

    def __init__(self, loss: nn.Module) -> None:
        self.inputs: list[tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]] = []
        self._training = loss.training
        self._state = {
            name: {
                kind: {key: cloned(value) for key, value in getattr(part, kind).items()}
                for kind in ("_parameters", "_buffers")
            }
            for name, part in loss.named_modules()
        }
        self._handle = loss.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, loss: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.inputs.append((args, kwargs, generator_states()))

    def stop(self) -> None:
        """Listen no longer."""
        self._handle.remove()

    def repeat(self, named: nn.Module) -> Tensor | None:
        """Return the sum of what the named loss gives for the same calls; None without a call."""
        loss = copy.deepcopy(named).train(self._training)
        for name, tensors in self._state.items():
            for kind, values in tensors.items():
                getattr(loss.get_submodule(name), kind).update(values)
        results = []
        for args, kwargs, states in self.inputs:
            with generators_kept():
                set_generator_states(states)
                results.append(_total(loss(*args, **kwargs)))
        return sum(results) if results else None


def _trained(model: nn.Module) -> list[Tensor]:
    """Return the trained parameters outside the backbone, or all if there are none."""
    trained = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith("losses.")
    }
    outside = [value for name, value in trained.items() if "backbone" not in name.split(".")]
    return outside or list(trained.values())


def _total(value: Tensor | Iterable[Tensor] | None) -> Tensor | None:
    """Sum a reported loss as mmengine does: the mean of a tensor, the sum over a list."""
    if value is None:
        return None
    return sum(part.mean() for part in ([value] if isinstance(value, Tensor) else value))


def _gradient(total: Tensor | None, parameters: Sequence[Tensor]) -> Tensor:
    """Return the gradient as one float64 vector; zero where nothing leads to a parameter."""
    gradients: Sequence[Tensor | None] = [None] * len(parameters)
    if total is not None and total.requires_grad:
        gradients = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    parts = [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
    return torch.cat([part.detach().flatten().cpu().double() for part in parts])


def _difference(ours: Tensor, theirs: Tensor) -> float | None:
    norm, distance = theirs.norm().item(), (ours - theirs).norm().item()
    if not math.isfinite(norm) or (norm == 0 and distance == 0):
        return None
    return distance / norm if norm and math.isfinite(distance) else math.inf
