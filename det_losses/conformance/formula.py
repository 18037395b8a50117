"""Is it the paper's formula: the value, the gradient, what is constant in it, the minimum."""

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from det_losses.conformance.case import (
    Case,
    Inputs,
    Reference,
    Skipped,
    call,
    call_in_place,
    expect,
    expect_close,
    gradients,
)
from det_losses.conformance.detach import recorded, replayed
from det_losses.conformance.inputs import CLASSES, examples
from det_losses.conformance.state import has_state, state_of, warm
from det_losses.losses.core.base import Loss

SEEDS = (0, 1)
STEP = 1e-6


def value(case: Case) -> None:
    """The value equals an independent reference, with every argument that the references name."""
    if not case.references:
        raise Skipped("no reference: give REFERENCES in the module of --references")
    for reference in case.references:
        loss = case.build(**reference.kwargs, reduction="none")
        for seed in SEEDS:
            for started in (loss, warm(case, loss)) if has_state(loss) else (loss,):
                inputs = examples(case, loss, 24, seed=seed)
                expected = reference.function(*_arrays(inputs), **_known(started, inputs))
                what = f"{_described(loss, reference)}, seed {seed}"
                expect_close(what, call(started, inputs), expected, rtol=1e-9)


def gradient(case: Case) -> None:
    """The gradient is that of the value by finite differences, with what is detached held."""
    loss = case.build(reduction="none")
    for started in (loss, warm(case, loss)) if has_state(loss) else (loss,):
        inputs, leaves = examples(case, started, 9).leaves()
        cotangent = torch.linspace(0.5, 1.5, 9, dtype=torch.float64)
        with recorded() as constants:
            total = _weighed(call_in_place(_frozen(started), inputs), cotangent)
        slopes = gradients(total, leaves)
        for index, slope in enumerate(slopes):
            numeric = _differences(_frozen(started), inputs, leaves, index, cotangent, constants)
            expect_close(
                "gradient, analytic against finite differences (what is constant must go through "
                "detach())",
                slope,
                numeric,
                rtol=1e-5,
                atol=1e-7 * max(1.0, float(numeric.abs().max())),
            )
        if has_state(loss):
            _check_training_gradient(started, inputs, leaves, cotangent)


def reference_gradient(case: Case) -> None:
    """The gradient is that of the reference, with what the paper holds constant held."""
    checked = [reference for reference in case.references if reference.constants]
    if not checked:
        raise Skipped("no reference says what is constant")
    for reference in checked:
        loss = case.build(**reference.kwargs, reduction="none")
        example = examples(case, loss, 9)
        known, arrays = _known(loss, example), _arrays(example)
        constants = reference.constants(*arrays, **known)
        inputs, leaves = example.leaves()
        slope = gradients(call(loss, inputs), leaves[:1])[0]
        numeric = np.zeros(arrays[0].shape)
        for index in np.ndindex(*numeric.shape):
            ends = []
            for sign in (1, -1):
                moved = arrays[0].copy()
                moved[index] += sign * STEP
                ends.append(reference.function(moved, arrays[1], **{**known, **constants}).sum())
            numeric[index] = (ends[0] - ends[1]) / (2 * STEP)
        what = f"gradient against the reference's, {_described(loss, reference)}"
        expect_close(what, slope, numeric, rtol=1e-5, atol=1e-7)


def constant(case: Case) -> None:
    """What is detached is named in ``constant_in_gradient``, and what is named is detached."""
    loss = case.build(reduction="none")
    inputs, _ = examples(case, loss).leaves()
    with recorded() as constants:
        call(loss.train(), inputs)
    named = loss.constant_in_gradient
    if constants:
        expect(named, "detach() is called, so constant_in_gradient must name what; it is empty")
    elif not has_state(loss):
        expect(not named, f"constant_in_gradient names {', '.join(named)}, but nothing is detached")


def zero(case: Case) -> None:
    """No value is negative, and a perfect prediction has loss 0 unless the class says not."""
    loss = case.build(reduction="none")
    for seed in SEEDS:
        low = call(loss, examples(case, loss, seed=seed)).min().item()
        expect(low >= -1e-9, f"expected no negative loss, got {low:.4g}")
    largest = call(loss.eval(), perfect(examples(case, loss), loss)).abs().max().item()
    if loss.zero_at_target:
        expect(largest < 1e-9, f"expected 0 at a perfect prediction, got {largest:.4g}")
    else:
        expect(largest > 1e-9, "zero_at_target is False, but a perfect prediction has loss 0")


def perfect(inputs: Inputs, loss: Loss) -> Inputs:
    """Put the best prediction in the place of what is predicted."""
    extra = dict(inputs.extra)
    if "pred_deltas" in extra:
        extra["pred_deltas"] = extra["target_deltas"]
    if "logits" in extra:
        extra["logits"] = _sure(extra["labels"], extra["logits"])
    if loss.kind == "box":
        return Inputs(inputs.target, inputs.target, extra)
    if loss.kind == "distribution":
        bins = torch.arange(inputs.pred.shape[-1], dtype=torch.float64)
        share = (1 - (bins - inputs.target[:, None]).abs()).clamp(min=1e-30)
        return Inputs(share.log(), inputs.target, extra)
    pred = _sure(inputs.target, inputs.pred)
    if "quality" in extra:
        known = (inputs.target >= 0) & (inputs.target < CLASSES)
        pred[known, inputs.target[known]] = extra["quality"][known].logit()
    return Inputs(pred, inputs.target, extra)


def _sure(labels: Tensor, like: Tensor) -> Tensor:
    channels = torch.arange(like.shape[-1])
    return torch.where(labels[:, None] == channels, 60.0, -60.0).to(like)


def _frozen(loss: Loss) -> Loss:
    return deepcopy(loss).eval()


def _weighed(value: Tensor, cotangent: Tensor) -> Tensor:
    """Sum with another factor for each row, so that no row's gradient stands for another's."""
    return (value.reshape(len(cotangent), -1) * cotangent[:, None]).sum()


def _differences(
    loss: Loss,
    inputs: Inputs,
    leaves: list[Tensor],
    index: int,
    cotangent: Tensor,
    constants: list[Tensor],
) -> Tensor:
    base = [leaf.detach() for leaf in leaves]
    numeric = torch.zeros_like(base[index])
    for entry in range(numeric.numel()):
        ends = []
        for sign in (1, -1):
            values = [tensor.clone() for tensor in base]
            values[index].view(-1)[entry] += sign * STEP
            moved = inputs.with_predicted([tensor.requires_grad_() for tensor in values])
            with replayed(constants):
                ends.append(_weighed(call_in_place(loss, moved), cotangent).item())
        numeric.view(-1)[entry] = (ends[0] - ends[1]) / (2 * STEP)
    return numeric


def _check_training_gradient(
    loss: Loss, inputs: Inputs, leaves: list[Tensor], cotangent: Tensor
) -> None:
    """In training the gradient is that with the state before the call, or after it, as given."""
    training = deepcopy(loss).train()
    slope = gradients(_weighed(call_in_place(training, inputs), cotangent), leaves)[0]
    fixed = [
        gradients(_weighed(call_in_place(_frozen(each), inputs), cotangent), leaves)[0]
        for each in (loss, training)
    ]
    expect(
        any(torch.allclose(slope, each, rtol=1e-9, atol=1e-12) for each in fixed),
        "the gradient in training is neither that with the state before the call nor after it: "
        "the state must be constant in the gradient",
    )


def _arrays(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    return inputs.pred.numpy().copy(), inputs.target.numpy().copy()


def _known(loss: Loss, inputs: Inputs) -> dict[str, Any]:
    """Return what a reference gets by name."""
    known = {k: v for k, v in loss.params().items() if k not in ("reduction", "loss_weight")}
    known |= {name: tensor.numpy().copy() for name, tensor in inputs.extra.items()}
    if has_state(loss):
        known["state"] = {name: tensor.numpy() for name, tensor in state_of(loss).items()}
    return known


def _described(loss: Loss, reference: Reference) -> str:
    arguments = ", ".join(f"{name}={each!r}" for name, each in reference.kwargs.items())
    return f"value of {type(loss).__name__}({arguments})"
