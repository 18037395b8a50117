"""Compiled exponentials, logarithms, sigmoids, arc tangents and powers against other libraries."""

import numpy as np
import pytest
import torch

from det_losses.tracing.trace import elementwise
from det_losses.tracing.traced import UnsupportedOperation

DTYPES = [torch.float32, torch.float64]
SPECIAL = [0.0, -0.0, 1.0, -1.0, -3.0, 1e-45, 1e-310, 3e38, 88.7, -104, 709.7, -745]
SPECIAL += [float("inf"), -float("inf"), float("nan")]
FUNCTIONS = {
    "exp": (torch.exp, np.exp, lambda rng, limits: rng.uniform(*np.log(limits), 20_000)),
    "log": (torch.log, np.log, lambda rng, limits: np.exp(rng.uniform(*np.log(limits), 20_000))),
    "log near 1": (torch.log, np.log, lambda rng, _: rng.uniform(0.7, 1.5, 20_000)),
    "atan": (torch.atan, np.arctan, lambda rng, _: rng.standard_cauchy(20_000)),
    "sigmoid": (
        torch.sigmoid,
        lambda x: 1 / (1 + np.exp(-x)),
        lambda rng, _: rng.uniform(-40, 40, 20_000),
    ),
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
    assert error < 3


@pytest.mark.parametrize("exponent", [0.3, -2.5, 5, -3, 7.25])
@pytest.mark.parametrize("dtype", DTYPES)
def test_powers_have_the_error_of_an_exponential_of_a_logarithm(dtype, exponent):
    x = torch.from_numpy(np.exp(np.random.default_rng(0).uniform(-10, 10, 20_000))).to(dtype)
    value = compiled(lambda x: x**exponent, x).numpy()
    error = units_in_the_last_place(value, x.numpy().astype(np.longdouble) ** exponent)
    # float64: the error of a logarithm up to 10 |exponent|, 2 units, and that of its exponential
    assert error < (0.51 if dtype == torch.float32 else 2 * 10 * abs(exponent) + 1)


@pytest.mark.parametrize("exponent", [1, True, -1, 0.5, -0.5, 1.5, 2, -2, 3, 4, 5, 1 / 3, 3.7])
def test_float32_powers_and_their_slopes_are_those_of_float64(exponent):
    x = torch.logspace(-9, 9, 300)
    slope = torch.empty_like(x)
    value = elementwise(lambda x: x**exponent, x.dtype)(x, slope)
    exact = x.double().requires_grad_()
    expected = exact**exponent
    (expected_slope,) = torch.autograd.grad(expected.sum(), exact)
    for ours, theirs in ((value, expected.detach()), (slope, expected_slope)):
        normal = (theirs > 1e-37) & (theirs < 1e38)
        torch.testing.assert_close(ours[normal].double(), theirs[normal], rtol=5e-7, atol=0)


@pytest.mark.parametrize("exponent", [float("inf"), float("nan"), 1e300, torch.ones(())])
def test_other_exponents_are_left_to_autograd(exponent):
    with pytest.raises(UnsupportedOperation, match="exponent"):
        elementwise(lambda x: x**exponent, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "function",
    [
        torch.exp,
        torch.log,
        torch.atan,
        *(lambda x, n=n: x**n for n in (0.3, -0.5, -1, 1, 5, -3, 6)),
    ],
)
def test_zeros_infinities_subnormal_numbers_and_nan_are_those_of_torch(function, dtype):
    x = torch.tensor(SPECIAL, dtype=dtype)
    torch.testing.assert_close(
        compiled(function, x), function(x), rtol=1e-5, atol=0, equal_nan=True
    )
