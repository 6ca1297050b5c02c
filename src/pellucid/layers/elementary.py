"""Elementary functions of float32 for compiled loops, which LLVM can vectorise: those of the C
library take one number at a time.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from pellucid.attention.instructions import REAL
from pellucid.attention.numba_cache import kept

f32 = np.float32
LOG2_E = f32(1.4426950408889634)
LN2_HIGH, LN2_LOW = f32(0.693359375), f32(-2.12194440e-4)
"""ln 2 in two parts, of which the first has few bits, so that its multiples are exact."""
LEAST, MOST = f32(-87.0), f32(88.0)
"""Beyond them the exponential is counted as 0, and as that of 88."""
ABOVE = tuple(
    map(
        f32,
        (
            -2.72614225801306e-10,
            2.77068142495902e-08,
            -2.10102402082508e-06,
            -5.69250639462346e-05,
            -7.34990630326855e-04,
            -2.95459980854025e-03,
            -1.60960333262415e-02,
        ),
    )
)
BELOW = tuple(
    map(
        f32,
        (
            -1.45660718464996e-05,
            -2.13374055278905e-04,
            -1.68282697438203e-03,
            -7.37332916720468e-03,
            -1.42647390514189e-02,
        ),
    )
)
"""Coefficients of a ratio of polynomials in x^2 that is erf(x) / x, as Eigen has them."""


@intrinsic
def of_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 of these 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], REAL)

    return types.float32(types.int32), generate


def _exact(function: Any) -> Any:
    """Compile a function whose sums stay in their order."""
    return kept(njit(fastmath={"contract"}, error_model="numpy", nogil=True)(function))


@_exact
def exp(x: Any) -> Any:
    """Within 1e-7 of itself: 2 ** n * exp(r), x = n ln 2 + r, by Taylor's series of exp(r)."""
    bounded = min(max(x, LEAST), MOST)
    n = f32(np.rint(bounded * LOG2_E))
    r = (bounded - n * LN2_HIGH) - n * LN2_LOW
    series = f32(1 / 5040)
    series = series * r + f32(1 / 720)
    series = series * r + f32(1 / 120)
    series = series * r + f32(1 / 24)
    series = series * r + f32(1 / 6)
    series = series * r + f32(1 / 2)
    series = series * r + f32(1.0)
    series = series * r + f32(1.0)
    power = of_bits(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))
    value = series * power if x >= LEAST else f32(0.0)
    return x if x != x else value


@_exact
def tanh(x: Any) -> Any:
    """Within 2e-7; near 0 that is not small beside it."""
    return f32(1.0) - f32(2.0) / (exp(f32(2.0) * x) + f32(1.0))


@_exact
def erf(x: Any) -> Any:
    """x P(x^2) / Q(x^2), within 3e-7, for x from -4 to 4, beyond which it is -1 and 1."""
    bounded = min(max(x, f32(-4.0)), f32(4.0))
    square = bounded * bounded
    above, below = f32(0.0), f32(0.0)
    for number in ABOVE:
        above = above * square + number
    for number in BELOW:
        below = below * square + number
    return x if x != x else bounded * above / below
