"""Seed, save and restore the global random generators of Python, numpy and torch together."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_generators(*numbers: int) -> None:
    """Seed all global generators, including those of every GPU, from a sequence of numbers.

    Trailing zeros are ignored: (1, 2) and (1, 2, 0) are the same seed.
    """
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        # torch.manual_seed formats a traceback for each missing accelerator, which takes 1 ms: in
        # the two calls of a step, 3% of the quickstart.
        torch.default_generator.manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """Return the states of all global generators, for :func:`set_generator_states`."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        # Reading a GPU's state would initialise CUDA in a process that has not used it.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Set all global generators to the states that :func:`generator_states` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def generators_kept(*numbers: int) -> Iterator[None]:
    """Restore all global generators on exit; if ``numbers`` are given, seed them on entry."""
    states = generator_states()
    if numbers:
        seed_generators(*numbers)
    try:
        yield
    finally:
        set_generator_states(states)
