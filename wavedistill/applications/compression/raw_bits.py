"""A sample as a symbol, whose probability the network knows, and bits that are as likely 0 as 1, stored as they are.

Symbols in the middle stand for 2^shift values each: ``shift`` bits follow. The first and the last have no end: how far
beyond the range a sample lies follows in Elias' gamma code.

References:
    Universal codeword sets and representations of the integers, Elias, 1975.
"""

from __future__ import annotations

import numpy as np

from wavedistill.applications.compression.network import SYMBOLS

LONGEST = 96
"""Bits that one sample adds at most."""


def write_bits(value, count, bits, position):
    """Append the lowest ``count`` bits of value, the highest first, to ``bits`` (one a byte); returns the position."""
    for i in range(count - 1, -1, -1):
        bits[position] = (value >> i) & 1
        position += 1
    return position


def read_bits(count, bits, position):
    """(value, position) of the next ``count`` bits; those beyond the end are 0."""
    value = np.int64(0)
    for _ in range(count):
        value = value << 1
        if position < len(bits):
            value |= np.int64(bits[position])
        position += 1
    return value, position


def write_value(offset, shift, bits, position):
    """(symbol, position) for a sample at ``offset`` from the first interval's start, after writing its bits."""
    symbol = offset >> shift
    if 0 < symbol < SYMBOLS - 1:
        return symbol, write_bits(offset, shift, bits, position)
    beyond = symbol - (SYMBOLS - 1)
    edge = SYMBOLS - 1
    if symbol <= 0:
        beyond = -symbol
        edge = 0
    size = 0
    while (beyond + 1) >> (size + 1):
        size += 1
    position = write_bits(0, size, bits, position)
    position = write_bits(beyond + 1, size + 1, bits, position)
    return edge, write_bits(offset, shift, bits, position)


def read_value(symbol, shift, bits, position):
    """(offset, position) of the sample that `write_value` wrote."""
    place = np.int64(symbol)
    if symbol == 0 or symbol == SYMBOLS - 1:
        size = 0
        bit, position = read_bits(1, bits, position)
        while bit == 0 and size < 40:
            size += 1
            bit, position = read_bits(1, bits, position)
        rest, position = read_bits(size, bits, position)
        beyond = ((np.int64(1) << size) | rest) - 1
        place = -beyond if symbol == 0 else symbol + beyond
    low_bits, position = read_bits(shift, bits, position)
    return (place << shift) | low_bits, position
