"""tanh as a quotient of polynomials, for loops that numba compiles: unlike the library's tanh it vectorises.

References:
    the approximation of the Eigen library, https://eigen.tuxfamily.org, MathFunctionsImpl.h
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from wavedistill.kernels.recursive_filter import SIMD

OPTIONS = {"fastmath": SIMD, "error_model": "numpy"}
"""Of the compiled loops around it: no test for division by zero, which would keep them from vectorising."""
LIMIT = np.float32(7.9053111)
"""Beyond it tanh is 1 within 3e-7."""
P1, P3, P5, P7, P9, P11, P13 = np.array(
    [
        4.89352455891786e-03,
        6.37261928875436e-04,
        1.48572235717979e-05,
        5.12229709037114e-08,
        -8.60467152213735e-11,
        2.00018790482477e-13,
        -2.76076847742355e-16,
    ],
    np.float32,
)
Q0, Q2, Q4, Q6 = np.array(
    [4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06], np.float32
)


@functools.cache
def tanh_parts() -> Callable:
    """A function of float32 x for use in compiled code: p and q of tanh(x) = p / q. NaN stays NaN.

    tanh(a) sigmoid(b) made of it, with sigmoid(b) = (1 + tanh(b / 2)) / 2, is wrong by 5e-7 at most.
    """
    from numba.extending import register_jitable

    @register_jitable(**OPTIONS)  # not njit: the disk cache would miss a function that calls compiled ones
    def parts(x):
        x = min(max(x, -LIMIT), LIMIT)
        s = x * x
        p = (((((P13 * s + P11) * s + P9) * s + P7) * s + P5) * s + P3) * s + P1
        q = ((Q6 * s + Q4) * s + Q2) * s + Q0
        return x * p, q

    return parts
