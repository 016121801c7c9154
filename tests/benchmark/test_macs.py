"""Multiply-adds against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wavedistill.benchmark.macs import count_macs, marginal_macs
from wavedistill.dsp.filters import all_pole, average_steps
from wavedistill.kernels.levinson import levinson_recursion


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize(
    ("run", "macs"),
    [
        (lambda: nn.Conv1d(3, 5, 7, padding=3)(torch.zeros(2, 3, 100)), 2 * 100 * 3 * 5 * 7),
        (lambda: nn.Conv1d(4, 4, 3, groups=4)(torch.zeros(1, 4, 12)), 10 * 4 * 3),
        (lambda: nn.ConvTranspose1d(4, 2, 8, 4)(torch.zeros(1, 4, 10)), 10 * 4 * 2 * 8),
        (lambda: nn.Linear(6, 4)(torch.zeros(2, 9, 6)), 2 * 9 * 6 * 4),
        (lambda: torch.zeros(3, 4, 5) @ torch.zeros(3, 5, 6), 3 * 4 * 5 * 6),
        (lambda: torch.zeros(3, 4, 6).baddbmm_(torch.zeros(3, 4, 5), torch.zeros(3, 5, 6)), 3 * 4 * 5 * 6),
        (lambda: torch.zeros(4, 5) @ torch.zeros(5), 4 * 5),
        (lambda: torch.zeros(7) @ torch.zeros(7), 7),
        (lambda: torch.tanh(torch.zeros(100)) * 3, 0),
        (lambda: torch.fft.rfft(torch.zeros(4, 1024)), 4 * 1.25 * 1024 * 10),
        (lambda: torch.fft.irfft(torch.zeros(4, 513, dtype=torch.complex64)), 4 * 1.25 * 1024 * 10),
        (lambda: torch.fft.fft(torch.zeros(4, 1024, dtype=torch.complex64)), 4 * 2.5 * 1024 * 10),
        (lambda: all_pole(torch.zeros(2, 5, 8), torch.zeros(2, 5, 3)), 2 * 5 * 8 * 3),
        (lambda: average_steps(torch.zeros(2, 40, 1), torch.zeros(2, 5, 3, 1, 1)), 2 * 40 * 3),
        (lambda: levinson_recursion(torch.tensor([[1.0, 0.5, 0.2, 0.1]]).repeat(6, 1)), 6 * (2 * (0 + 1 + 2) + 3)),
    ],
    ids=[
        "conv",
        "grouped",
        "transposed",
        "linear",
        "batched",
        "batched-in-place",
        "matrix-vector",
        "dot",
        "elementwise",
        "rfft",
        "irfft",
        "fft",
        "all-pole",
        "fir",
        "levinson",
    ],
)
def test_counts_by_hand(run, macs, mode):
    with mode():
        found = count_macs(run)
    assert found.macs == pytest.approx(macs) and not found.uncounted


def test_unknown_operators_are_named():
    @torch.library.custom_op("benchmark_test::mystery", mutates_args=())
    def mystery(x: torch.Tensor) -> torch.Tensor:
        return x @ x

    assert count_macs(lambda: mystery(torch.ones(3, 3))).uncounted == {"benchmark_test::mystery"}


def test_edges_cancel_in_the_marginal_count():
    layer = nn.Linear(10, 20)
    found = marginal_macs(lambda frames: lambda: layer(torch.zeros(frames + 7, 10)), 5)
    assert found.macs == 5 * 10 * 20
