"""Exponential, logarithm, sigmoid, arc tangent and power as arithmetic on the numbers of a row.

LLVM can compute several rows at once only if the loop calls no function of the C library. So these
functions are series, after a reduction of the argument to a small interval. They are within 3 units
in the last place, with or without fused multiply-add instructions; a power of float64 numbers has
an error that grows with its logarithm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context
from fractions import Fraction
from math import factorial, pi, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from det_losses.tracing.machine_code import Code

_LN2 = Fraction(Context(prec=40).ln(2))


@dataclass(frozen=True)
class _Format:
    """A binary floating-point format of IEEE 754, and what the series need for its precision.

    Attributes:
        bits: of a number.
        fraction: bits of the fraction.
        bias: of the exponent.
        exp_terms: terms of the exponential's series for an argument of at most log(2) / 2.
        log_terms: terms of the logarithm's series for an argument of at most 0.172.
        log1p_terms: terms of the same series for an argument of at most 1/3.
        atan_terms: terms of the arc tangent's series for an argument of at most tan(pi / 8).
        ln2: log(2) in two parts; the product of the first and an exponent is exact.
        shift: a number whose last bits are those of an integer that is added to it.
    """

    bits: int
    fraction: int
    bias: int
    exp_terms: int
    log_terms: int
    log1p_terms: int
    atan_terms: int

    @property
    def ln2(self) -> tuple[float, float]:
        scale = 2 ** (2 * self.fraction + 2 - self.bits)  # exponents have bits - fraction - 1 bits
        high = round(_LN2 * scale) / scale
        return high, float(_LN2 - Fraction(high))

    @property
    def shift(self) -> float:
        return 1.5 * 2.0**self.fraction


_FORMATS = {
    "float": _Format(32, 23, 127, exp_terms=8, log_terms=5, log1p_terms=8, atan_terms=9),
    "double": _Format(64, 52, 1023, exp_terms=14, log_terms=11, log1p_terms=17, atan_terms=21),
}


def exp(code: "Code", x: str) -> str:
    """Exponential: 2^n e^r, where r = x - n ln 2, by the series of e^r."""
    form = _FORMATS[code.number]
    high, low = form.ln2
    # Beyond these n, the result is 0 or infinite, and 2^(n/2) would be no normal number.
    lowest, highest = (-form.bias - form.fraction - 2) * float(_LN2), (form.bias + 2) * float(_LN2)
    x = code.value(f"{lowest} if x < {lowest} else {highest} if x > {highest} else x", x=x)
    n = _nearest(code, code.value(f"x * {float(1 / _LN2)}", x=x))
    r = code.value(f"muladd(n, {-low}, muladd(n, {-high}, x))", x=x, n=n)
    series = _polynomial("r", [1 / factorial(k) for k in range(form.exp_terms)])
    first = _nearest(code, code.value("0.5 * n", n=n))
    rest = code.value("n - first", n=n, first=first)
    powers = {"a": _power_of_two(code, first), "b": _power_of_two(code, rest)}
    return code.value(f"{series} * a * b", r=r, **powers)


def log(code: "Code", x: str) -> str:
    """Natural logarithm of x = 2^e m: e ln 2 + ln m; ln m = 2 artanh((m - 1) / (m + 1)).

    The bits of a positive number are its biased exponent and, below it, the fraction of m - 1. So
    e + bias is the exponent of these bits plus what carries a fraction above that of sqrt(2) over:
    m is from sqrt(1/2) to sqrt(2). Other numbers get their results at the end.
    """
    form = _FORMATS[code.number]
    integer, (high, low) = f"i{form.bits}", form.ln2
    scale, least = 2.0 ** (form.fraction + 1), 2.0 ** (1 - form.bias)
    normal = code.value(f"x * {scale} if x < {least} else x", x=x)
    bits = code.add(f"bitcast {code.number} {normal} to {integer}")
    carry = 2**form.fraction - int((sqrt(2) - 1) * 2**form.fraction)
    biased = code.add(f"add {integer} {bits}, {carry}")
    biased = code.add(f"lshr {integer} {biased}, {form.fraction}")
    exponent = code.add(f"sub {integer} {biased}, {form.bias}")
    exponent = code.add(f"shl {integer} {exponent}, {form.fraction}")
    m = code.add(f"sub {integer} {bits}, {exponent}")
    m = code.add(f"bitcast {integer} {m} to {code.number}")
    # 2^fraction + the biased exponent, whose bits are the last ones: faster than a conversion
    unit = 2.0**form.fraction
    number = code.add(f"or {integer} {biased}, {(form.bias + form.fraction) << form.fraction}")
    number = code.add(f"bitcast {integer} {number} to {code.number}")
    bias, scaled = unit + form.bias, unit + form.bias + form.fraction + 1
    e = code.value(f"n - ({scaled} if x < {least} else {bias})", n=number, x=x)
    s = code.value("(m - 1) / (m + 1)", m=m)
    z = code.value("s * s", s=s)
    rest = code.value(f"s * z * {_artanh(form.log_terms)}", s=s, z=z)
    value = code.value(f"muladd(e, {high}, muladd(e, {low}, rest) + 2 * s)", e=e, rest=rest, s=s)
    value = code.value("v if x < inf else x", v=value, x=x)
    return code.value("nan if x < 0 else -inf if x == 0 else v", x=x, v=value)


def sigmoid(code: "Code", x: str) -> str:
    """Sigmoid: 1 / (1 + t) or t / (1 + t), where t = e^-|x|."""
    return code.value("(1 if x >= 0 else t) * (1 / (1 + t))", x=x, t=_tail(code, x))


def logsigmoid(code: "Code", x: str) -> str:
    """Logarithm of the sigmoid: min(x, 0) - ln(1 + t), where t = e^-|x| is from 0 to 1."""
    t = _tail(code, x)
    s = code.value("t / (2 + t)", t=t)  # ln(1 + t) = 2 artanh(s)
    z = code.value("s * s", s=s)
    series = _artanh(_FORMATS[code.number].log1p_terms)
    log1p = code.value(f"muladd(s * z, {series}, 2 * s)", s=s, z=z)
    return code.value("(x if x < 0 else 0) - l", x=x, l=log1p)


def atan(code: "Code", x: str) -> str:
    """Arc tangent of a = |x|: pi / 4 + that of (a - 1) / (a + 1), or pi / 2 - that of 1 / a."""
    form = _FORMATS[code.number]
    least, most = sqrt(2) - 1, sqrt(2) + 1  # tan(pi / 8), tan(3 pi / 8)
    a = code.value("abs(x)", x=x)
    q = code.value(
        f"(-1 if a > {most} else a - 1 if a > {least} else a)"
        f" / (a if a > {most} else a + 1 if a > {least} else 1)",
        a=a,
    )
    z = code.value("q * q", q=q)
    base = code.value(f"{pi / 2} if a > {most} else {pi / 4} if a > {least} else 0", a=a)
    series = _polynomial("z", [(-1) ** k / (2 * k + 1) for k in range(1, form.atan_terms)])
    value = code.value(f"base + (q + q * z * {series})", base=base, q=q, z=z)
    return code.value("copysign(v, x)", v=value, x=x)


def power(code: "Code", x: str, y: str) -> str:
    """Power for a finite y other than 0: e^(y ln|x|), with the sign of x if y is an odd integer."""
    value = exp(code, code.value("y * l", y=y, l=log(code, code.value("abs(x)", x=x))))
    whole = code.value("y == floor(y)", y=y)
    even = code.value("0.5 * y == floor(0.5 * y)", y=y)
    value = code.value("copysign(v, x) if w and not even else v", v=value, x=x, w=whole, even=even)
    # As in the C standard, a power of -infinity is that of infinity.
    return code.value("v if w or (x >= 0 or x == -inf) else nan", v=value, x=x, w=whole)


def _polynomial(variable: str, coefficients: Sequence[float]) -> str:
    """Return a polynomial as an expression, from its coefficients in ascending order."""
    *others, expression = map(repr, coefficients)
    for coefficient in reversed(others):
        expression = f"muladd({variable}, {expression}, {coefficient})"
    return expression


def _artanh(terms: int) -> str:
    """Return (2 artanh(s) - 2 s) / s^3 as an expression of z = s^2."""
    return _polynomial("z", [2 / (2 * k + 1) for k in range(1, terms)])


def _tail(code: "Code", x: str) -> str:
    """Return e^-|x|; LLVM merges those of x and -x."""
    return exp(code, code.value("-abs(x)", x=x))


def _nearest(code: "Code", x: str) -> str:
    """Round to an integer: the sum has no bits for a fraction."""
    shift = _FORMATS[code.number].shift
    return code.value(f"x + {shift} - {shift}", x=x)


def _power_of_two(code: "Code", n: str) -> str:
    """Return 2^n for an integer n, the exponent of a normal number."""
    form = _FORMATS[code.number]
    integer = f"i{form.bits}"
    bits = code.add(f"bitcast {code.number} {code.value(f'n + {form.shift}', n=n)} to {integer}")
    bits = code.add(f"shl {integer} {bits}, {form.fraction}")
    bits = code.add(f"add {integer} {bits}, {form.bias << form.fraction}")
    return code.add(f"bitcast {integer} {bits} to {code.number}")


FUNCTIONS = {"exp": exp, "log": log, "sigmoid": sigmoid, "logsigmoid": logsigmoid, "atan": atan}
