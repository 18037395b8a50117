"""Every loss on two ranks: together they compute what one process computes for all rows."""

from dataclasses import replace

import pytest
import torch
from ranks import on_ranks

from det_losses.conformance import case_of, registered_losses

NAMES = [n for n, cls in registered_losses().items() if cls.__module__.startswith("det_losses.")]
# The rows of each rank in two steps; in the second, one rank has none.
SPLITS = ((slice(0, 3), slice(3, 8)), (slice(0, 8), slice(0, 0)))
POSITIVES = 5.0  # avg_factor of the whole batch
# So many classes that not all of them occur or are drawn.
ARGUMENTS = {"FederatedLoss": dict(num_classes=12, num_sampled=8)}
WEIGHT = torch.tensor([1.0, 0.5, 2, 1, 0, 1, 3, 1])


def steps(name, rank=None):
    """Value, gradients and buffers after each step of a loss in training."""
    torch.manual_seed(rank or 0)  # a loss that draws takes the draws of rank 0
    loss = case_of(name, {}).build(**ARGUMENTS.get(name, {}))
    found = []
    for number, split in enumerate(SPLITS):
        rows = slice(None) if rank is None else split[rank]
        examples = case_of(name, {}).examples(loss, 8, seed=number)
        if name in ARGUMENTS:
            examples = replace(examples, pred=torch.nn.functional.pad(examples.pred, (0, 9)))
        inputs, leaves = examples.rows(rows).leaves()
        divisor = POSITIVES if rank is None else POSITIVES / 2
        value = loss(inputs.pred, inputs.target, WEIGHT[rows], divisor, **inputs.extra)
        gradients = torch.autograd.grad(value, leaves)
        found.append((value.detach(), gradients, dict(loss.named_buffers())))
    return found


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return on_ranks(lambda rank: {name: steps(name, rank) for name in NAMES}, folder)


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_are_one_process(name, two_ranks):
    """The value is the mean over the ranks, as is the gradient, and the state is the same."""
    for whole, *parts in zip(steps(name), *(each[name] for each in two_ranks), strict=True):
        values, gradients, states = zip(*parts, strict=True)
        torch.testing.assert_close(sum(values) / 2, whole[0], rtol=1e-5, atol=1e-7)
        for both, expected in zip(zip(*gradients, strict=True), whole[1], strict=True):
            torch.testing.assert_close(torch.cat(both) / 2, expected, rtol=1e-4, atol=1e-6)
        for state in states:
            torch.testing.assert_close(state, whole[2], rtol=1e-5, atol=1e-7)
