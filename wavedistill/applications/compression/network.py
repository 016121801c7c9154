"""The trained part: a small network turns features into a mixture of logistic distributions of the next sample.

Its layers run in float32, each output a sum over the inputs in their order: no library that may sum otherwise.
"""

from __future__ import annotations

import numpy as np

from wavedistill.applications.compression.arithmetic import exp2
from wavedistill.applications.compression.features import DIFFERENCES, FEATURES, FLOOR

HIDDEN = (80, 56)
COMPONENTS = 5
OUTPUTS = 3 * COMPONENTS + DIFFERENCES
SYMBOLS = 96
"""Intervals into which the next sample's range is cut; the first and the last have no end."""
STEPS_PER_WIDTH = 5.0
SHARPEST = 0.05
"""Smallest scale of a component, in steps of the grid."""
LARGEST_LOG2 = 6.0
"""A component's scale lies within this many octaves of the mean error's."""
_LEAST = 1e-7
_LOG2_E = 1.4426950408889634

NETWORK = np.dtype(
    [
        ("weight_1", "f4", (FEATURES, HIDDEN[0])),
        ("bias_1", "f4", (HIDDEN[0],)),
        ("weight_2", "f4", (HIDDEN[0], HIDDEN[1])),
        ("bias_2", "f4", (HIDDEN[1],)),
        ("weight_3", "f4", (HIDDEN[1], OUTPUTS)),
        ("bias_3", "f4", (OUTPUTS,)),
    ],
    align=True,
)
MIXTURE = np.dtype(
    [
        ("hidden_1", "f4", (HIDDEN[0],)),
        ("hidden_2", "f4", (HIDDEN[1],)),
        ("outputs", "f4", (OUTPUTS,)),
        ("weights", "f8", (COMPONENTS,)),
        ("centres", "f8", (COMPONENTS,)),
        ("scales", "f8", (COMPONENTS,)),
        ("first", "i8"),
        ("shift", "i8"),
        ("probabilities", "f8", (SYMBOLS,)),
    ],
    align=True,
)


def linear(inputs, weight, bias, outputs):
    """outputs = bias + sum_j inputs_j weight_j, j in order; inputs that are 0, as half of them are, are left out."""
    for i in range(len(outputs)):
        outputs[i] = bias[i]
    for j in range(len(inputs)):
        x = inputs[j]
        if x != 0:
            row = weight[j]
            for i in range(len(outputs)):
                outputs[i] += x * row[i]


def rectify(values):
    """max(value, 0) in place."""
    for i in range(len(values)):
        if not values[i] > 0:
            values[i] = 0


def mix(network, features, centre, scale, mixture):
    """Fill the mixture's weights, centres and scales, in steps of the grid.

    The network's outputs are, of each component, log-weight, centre and log2 of the scale, and then how far all centres
    move towards each of the predictions that the cascade has weighed.

    ``centre`` is the cascade's prediction, ``scale`` the mean size of its errors.
    """
    linear(features, network.weight_1, network.bias_1, mixture.hidden_1)
    rectify(mixture.hidden_1)
    linear(mixture.hidden_1, network.weight_2, network.bias_2, mixture.hidden_2)
    rectify(mixture.hidden_2)
    linear(mixture.hidden_2, network.weight_3, network.bias_3, mixture.outputs)
    unit = scale + FLOOR
    moved = 0.0
    for j in range(DIFFERENCES):
        moved += np.float64(mixture.outputs[3 * COMPONENTS + j]) * np.float64(features[j])
    largest = mixture.outputs[0]
    for k in range(1, COMPONENTS):
        largest = max(largest, mixture.outputs[k])
    total = 0.0
    for k in range(COMPONENTS):
        mixture.weights[k] = exp2(np.float64(mixture.outputs[k] - largest))
        total += mixture.weights[k]
        mixture.centres[k] = centre + unit * (moved + np.float64(mixture.outputs[COMPONENTS + k]))
        octaves = np.float64(mixture.outputs[2 * COMPONENTS + k])
        octaves = min(max(octaves, -LARGEST_LOG2), LARGEST_LOG2)
        mixture.scales[k] = max(unit * exp2(octaves), SHARPEST)
    for k in range(COMPONENTS):
        mixture.weights[k] /= total


def cut(mixture, low, high):
    """Cut the range of the next sample into intervals and fill their probabilities.

    Symbol i, from 1 to SYMBOLS - 2, stands for the 2^shift values from ``first`` + i 2^shift on; below and above lie
    the first and the last symbol.
    """
    mean = 0.0
    for k in range(COMPONENTS):
        mean += mixture.weights[k] * mixture.centres[k]
    mean = min(max(mean, low), high)
    width = 0.0
    for k in range(COMPONENTS):
        width += mixture.weights[k] * (1.8 * mixture.scales[k] + abs(mixture.centres[k] - mean))
    shift = 0
    step = 1.0
    while step * (2.0 * STEPS_PER_WIDTH) < width and shift < 24:
        shift += 1
        step *= 2.0
    mixture.shift = shift
    mixture.first = np.int64(np.floor(mean + 0.5)) - ((SYMBOLS // 2) << shift)
    for i in range(SYMBOLS):
        mixture.probabilities[i] = _LEAST
    first = np.float64(mixture.first) - 0.5
    for k in range(COMPONENTS):
        inverse = _LOG2_E / mixture.scales[k]
        weight = mixture.weights[k]
        below = 0.0
        for i in range(SYMBOLS - 1):
            reached = 1.0 / (1.0 + exp2((mixture.centres[k] - (first + (i + 1) * step)) * inverse))
            mixture.probabilities[i] += max(weight * (reached - below), 0.0)
            below = reached
        mixture.probabilities[SYMBOLS - 1] += weight * (1.0 - below)
