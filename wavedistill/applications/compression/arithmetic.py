"""Functions that give the same bits on every machine: operations that IEEE 754 rounds correctly, in a stated order.

`math.exp` and its like differ between C libraries and processors in the last bits. These use +, -, *, / and square
roots of float64, and are compiled without fast arithmetic, so that no compiler may fuse or reorder them.
"""

from __future__ import annotations

import math

import numpy as np

_LN2 = math.log(2)
_EXP2 = tuple(_LN2**k / math.factorial(k) for k in range(9))
_LOG2 = tuple(2 / (_LN2 * (2 * k + 1)) for k in range(7))
_MANTISSA = np.int64((1 << 52) - 1)
_ONE = np.int64(1023 << 52)


def exp2(x: float) -> float:
    """2^x within 1e-9 of it, for x clamped to [-1000, 1000]."""
    if not x > -1000.0:
        x = -1000.0
    if x > 1000.0:
        x = 1000.0
    whole = np.floor(x + 0.5)
    part = x - whole
    total = _EXP2[8]
    for k in range(7, -1, -1):
        total = total * part + _EXP2[k]
    return total * np.int64((np.int64(whole) + 1023) << 52).view(np.float64)


def log2(x: float) -> float:
    """log2 of a normal, positive x within 1e-9."""
    bits = np.float64(x).view(np.int64)
    exponent = (bits >> 52) - 1023
    mantissa = np.int64((bits & _MANTISSA) | _ONE).view(np.float64)
    if mantissa > 1.4142135623730951:
        mantissa = mantissa * 0.5
        exponent += 1
    z = (mantissa - 1.0) / (mantissa + 1.0)
    square = z * z
    total = _LOG2[6]
    for k in range(5, -1, -1):
        total = total * square + _LOG2[k]
    return exponent + total * z
