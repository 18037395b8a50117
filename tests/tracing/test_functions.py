"""Compiled exponentials, logarithms, arc tangents and powers against numpy in higher precision."""

import numpy as np
import pytest
import torch

from det_losses.tracing.trace import elementwise

DTYPES = [torch.float32, torch.float64]
SPECIAL = [0.0, -0.0, 1.0, -1.0, -3.0, 1e-45, 1e-310, 3e38, 88.7, -104, 709.7, -745]
SPECIAL += [float("inf"), -float("inf"), float("nan")]
FUNCTIONS = {
    "exp": (torch.exp, np.exp, lambda rng, limits: rng.uniform(*np.log(limits), 20_000)),
    "log": (torch.log, np.log, lambda rng, limits: np.exp(rng.uniform(*np.log(limits), 20_000))),
    "log near 1": (torch.log, np.log, lambda rng, _: rng.uniform(0.7, 1.5, 20_000)),
    "atan": (torch.atan, np.arctan, lambda rng, _: rng.standard_cauchy(20_000)),
    "logsigmoid": (
        torch.nn.functional.logsigmoid,
        lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))),
        lambda rng, _: rng.uniform(-40, 40, 20_000),
    ),
}


def compiled(function, x):
    return elementwise(function, x.dtype)(x, torch.empty_like(x))


def units_in_the_last_place(value, reference):
    """Return the largest error, as a multiple of the distance of neighbouring numbers."""
    spacing = np.spacing(np.abs(reference).astype(value.dtype)).astype(np.longdouble)
    return (np.abs(value - reference) / spacing).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_within_three_units_in_the_last_place(name, dtype):
    function, reference, sample = FUNCTIONS[name]
    limits = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    x = torch.from_numpy(sample(np.random.default_rng(0), limits)).to(dtype)
    error = units_in_the_last_place(
        compiled(function, x).numpy(), reference(x.numpy().astype(np.longdouble))
    )
    assert 0 < error < 3


@pytest.mark.parametrize("exponent", [0.3, -2.5, 5, -3, 7.25])
@pytest.mark.parametrize("dtype", DTYPES)
def test_powers_have_the_error_of_an_exponential_of_a_logarithm(dtype, exponent):
    x = torch.from_numpy(np.exp(np.random.default_rng(0).uniform(-10, 10, 20_000))).to(dtype)
    value = compiled(lambda x: x**exponent, x).numpy()
    rounded = np.longdouble(torch.tensor(exponent, dtype=dtype).item())
    error = units_in_the_last_place(value, x.numpy().astype(np.longdouble) ** rounded)
    # float64: the error of a logarithm up to 10 |exponent|, 2 units, and that of its exponential
    assert 0 < error < (0.51 if dtype == torch.float32 else 2 * 10 * abs(exponent) + 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "function",
    [torch.exp, torch.log, torch.atan, *(lambda x, n=n: x**n for n in (0.3, 5, -3, 6))],
)
def test_zeros_infinities_subnormal_numbers_and_nan_are_those_of_torch(function, dtype):
    x = torch.tensor(SPECIAL, dtype=dtype)
    torch.testing.assert_close(
        compiled(function, x), function(x), rtol=1e-5, atol=0, equal_nan=True
    )
