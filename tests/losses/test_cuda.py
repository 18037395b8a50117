"""Losses on a GPU: equal to the CPU, without waiting for the GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from det_losses.conformance import case_of, registered_losses
from det_losses.conformance.case import call_in_place, gradients, state_of

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]
NAMES = [n for n, cls in registered_losses().items() if cls.__module__.startswith("det_losses.")]


@contextmanager
def no_synchronization() -> Iterator[None]:
    """Raise an error at each operation that waits for the GPU."""
    try:
        torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def run(case, device):
    """Return value, gradients and buffers of two training steps after the first.

    The first step is not guarded: it reads the values of labels and weights to check them.
    """
    loss = case.build().train().to(device)
    first = case.examples(loss, 24, seed=2).map(lambda x: x.to(device))
    call_in_place(loss, first, torch.ones(24, dtype=torch.float64, device=device))
    results = []
    for seed in (0, 1):
        inputs = case.examples(loss, 24, seed=seed).map(lambda x: x.to(device))
        copy, leaves = inputs.leaves()
        weight = torch.linspace(0, 2, 24, dtype=torch.float64, device=device)
        count = torch.tensor(7.0, device=device)
        with no_synchronization():
            value = call_in_place(loss, copy, weight, avg_factor=count)
            slopes = gradients(value, leaves)
        results += [value, *slopes, *state_of(loss).values()]
    return [result.detach().cpu() for result in results]


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_cpu_without_synchronization(name):
    case = case_of(name, {})
    torch.testing.assert_close(run(case, "cuda"), run(case, "cpu"), rtol=1e-9, atol=1e-11)
